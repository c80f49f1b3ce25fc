-- Passwords, tokens and signatures, written in Rust. Nobody but the owner's functions may call these.

create function shell.hash_password(password text) returns text
language c volatile strict parallel safe cost 1000000
as 'MODULE_PATHNAME', 'pg_shell_hash_password';
comment on function shell.hash_password(text) is 'An argon2id hash of the password, in the PHC format, with a salt of its own.';

create function shell.password_matches(hash text, password text) returns boolean
language c stable parallel safe cost 1000000
as 'MODULE_PATHNAME', 'pg_shell_password_matches';
comment on function shell.password_matches(text, text) is
  'Whether the hash is of this password. A null hash matches none, and takes as long as any.';

create function shell.new_token() returns text
language c volatile parallel safe
as 'MODULE_PATHNAME', 'pg_shell_new_token';
comment on function shell.new_token() is 'A new secret: pgsh_ and 32 random bytes as base64url.';

create function shell.sign_jwt(claims jsonb) returns text
language c stable strict parallel safe
as 'MODULE_PATHNAME', 'pg_shell_sign_jwt';
comment on function shell.sign_jwt(jsonb) is
  'A JSON Web Token with these claims, signed by HS256 with the secret of pg_shell.jwt_secret. Raises PS020 without one.';
