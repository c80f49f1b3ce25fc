-- Who a request is from, and how people sign in.
--
-- A request's user is the "sub" of its token's claims, as PostgREST hands them over; never an argument. Whoever may
-- run SQL of their own may set these claims too: no role that logs in is to be a member of shell_user.

create table shell.credentials (
  user_id uuid primary key references shell.users (id),
  password_hash text not null,
  changed_at timestamptz not null default clock_timestamp()
);
comment on table shell.credentials is 'Passwords, as hashes. No role may read it.';
comment on column shell.credentials.user_id is 'Whose it is.';
comment on column shell.credentials.password_hash is 'argon2id, in the PHC format.';
comment on column shell.credentials.changed_at is 'When it was last set.';

create table shell.user_sessions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references shell.users (id),
  kind text not null,
  name text not null,
  token_hash bytea not null unique,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  last_used_at timestamptz,
  user_agent text,
  ip_address inet,
  revoked_at timestamptz,

  constraint kind_enum check (kind in ('session', 'token')),
  constraint token_name_is_printable check (name ~ '^[^[:cntrl:]]{1,64}$'),
  constraint token_hash_is_sha256 check (octet_length(token_hash) = 32),
  constraint user_agent_fits check (length(user_agent) <= 512)
);
comment on table shell.user_sessions is 'Who is signed in where, and the tokens of programs.';
comment on column shell.user_sessions.id is 'The claim "sid" of the JSON Web Tokens made of it.';
comment on column shell.user_sessions.user_id is 'Whose it is.';
comment on column shell.user_sessions.kind is 'session, made by signing in, or token, made for a program.';
comment on column shell.user_sessions.name is 'For people.';
comment on column shell.user_sessions.token_hash is 'SHA-256 of the token, which is 32 random bytes and is kept nowhere.';
comment on column shell.user_sessions.created_at is 'When it was made.';
comment on column shell.user_sessions.expires_at is 'From when on it counts no more.';
comment on column shell.user_sessions.last_used_at is 'When it was last used, to a minute.';
comment on column shell.user_sessions.user_agent is 'The program that last used it, by what that says.';
comment on column shell.user_sessions.ip_address is 'From where it was last used, by what the server says.';
comment on column shell.user_sessions.revoked_at is 'When somebody signed out or revoked it.';
create index user_sessions_of_user on shell.user_sessions (user_id);
create index user_sessions_by_end on shell.user_sessions (expires_at);

-- A crash forgets the last quarter of an hour's failures: unlogged, for strangers write here.
create unlogged table shell.sign_in_attempts (
  username text not null,
  ip_address inet,
  failed_at timestamptz not null default clock_timestamp()
);
comment on table shell.sign_in_attempts is 'Failures to sign in, kept for an hour, to limit their rate.';
comment on column shell.sign_in_attempts.username is 'The name as it was given, cut to 64 characters; there may be no such user.';
comment on column shell.sign_in_attempts.ip_address is 'From where, by what the server says.';
comment on column shell.sign_in_attempts.failed_at is 'When.';
create index sign_in_attempts_by_name on shell.sign_in_attempts (username, failed_at);
create index sign_in_attempts_by_address on shell.sign_in_attempts (ip_address, failed_at);
create index sign_in_attempts_by_time on shell.sign_in_attempts (failed_at);

select pg_catalog.pg_extension_config_dump('shell.credentials', '');
select pg_catalog.pg_extension_config_dump('shell.user_sessions', '');

-- These are asked at every query. Their bodies are read when they are made, so they need no search_path of their own,
-- and are inlined.

create function shell.claims() returns jsonb
language sql stable parallel safe
return nullif(current_setting('request.jwt.claims', true), '')::jsonb;
comment on function shell.claims() is 'The claims of the request''s token; null without one.';

create function shell.uuid_of(value text) returns uuid
language sql immutable parallel safe
return case when value ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then value::uuid end;
comment on function shell.uuid_of(text) is 'The text as a uuid; null where it is none.';

create function shell.current_user_id() returns uuid
language sql stable parallel safe
return shell.uuid_of(shell.claims() ->> 'sub');
comment on function shell.current_user_id() is 'The user from whom the request is; null where nobody has signed in.';

create function shell.request_role() returns name
language sql stable parallel safe
return coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name;
comment on function shell.request_role() is
  'The role of the request, in functions too that run as their owner, where current_user is the owner.';

create function shell.is_admin() returns boolean
language sql stable parallel safe
return pg_has_role(shell.request_role(), 'shell_admin', 'usage');
comment on function shell.is_admin() is 'Whether the request''s role may act for any user.';

create function shell.reads_all() returns boolean
language sql stable parallel safe
return shell.is_admin() or pg_has_role(shell.request_role(), 'shell_auditor', 'usage');
comment on function shell.reads_all() is 'Whether the request''s role sees what is other users''.';

create function shell.request_header(name text) returns text
language sql stable parallel safe
return nullif(current_setting('request.headers', true), '')::jsonb ->> name;
comment on function shell.request_header(text) is 'A header of the request, by its name in lower case.';

create function shell.request_address() returns inet
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The last one: what stands before it the client may have written.
  return trim(regexp_replace(shell.request_header('x-forwarded-for'), '^.*,', ''))::inet;
exception when invalid_text_representation then
  return null;
end
$$;
comment on function shell.request_address() is
  'The client''s address: the last of X-Forwarded-For, which the server or proxy in front must set. Null without.';

create function shell.refuse(status int, code text, message text, hint text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- PostgREST's own way to have the code, the sentence and the status.
  raise exception using
    errcode = 'PGRST',
    message = json_build_object('code', code, 'message', message, 'details', null, 'hint', hint),
    detail = json_build_object('status', status, 'headers', json_build_object());
end
$$;
comment on function shell.refuse(int, text, text, text) is 'Ends a request with this HTTP status and error.';

create function shell.answer_error(status int, code text, message text, hint text) returns json
language sql
set search_path = pg_catalog, pg_temp
as $$
  select set_config('response.status', status::text, true);
  select json_build_object('code', code, 'message', message, 'details', null, 'hint', hint)
$$;
comment on function shell.answer_error(int, text, text, text) is
  'The same answer as of shell.refuse, where what was written must stay: the transaction commits.';

create function shell.may_try_password(username text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  address constant inet := shell.request_address();
  since constant timestamptz := clock_timestamp() - interval '15 minutes';
begin
  -- One attempt for a name at a time, or many at once would each find few before it.
  perform pg_advisory_xact_lock(hashtextextended('pg_shell sign in ' || may_try_password.username, 0));
  return (
    select count(*) < 10 from shell.sign_in_attempts as a
    where a.username = may_try_password.username and a.failed_at > since
  ) and (
    select count(*) < 50 from shell.sign_in_attempts as a where a.ip_address = address and a.failed_at > since
  );
end
$$;
comment on function shell.may_try_password(text) is
  'Whether there were few failures of this name, and of the request''s address, of late. Waits for other attempts for it.';

create function shell.count_failure(username text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  delete from shell.sign_in_attempts as a where a.failed_at < clock_timestamp() - interval '1 hour';
  insert into shell.sign_in_attempts (username, ip_address) values (count_failure.username, shell.request_address())
$$;
comment on function shell.count_failure(text) is 'Records a wrong password. Its transaction must commit.';

create function shell.answer_too_many() returns json
language sql
set search_path = pg_catalog, pg_temp
as $$
  select set_config('response.headers', '[{"Retry-After": "900"}]', true);
  select shell.answer_error(
    429, 'PS017', 'too many failures to sign in', 'Wait for a quarter of an hour, then try again.')
$$;
comment on function shell.answer_too_many() is 'The answer where a password may not be tried.';

create function shell.require_password(password text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(octet_length(password), 0) not between 8 and 1024 then
    raise exception using
      errcode = 'PS021',
      message = format('the password has %s bytes', coalesce(octet_length(password), 0)),
      hint = 'Choose one of 8 to 1024 bytes; several words are better than one.';
  end if;
end
$$;
comment on function shell.require_password(text) is 'Raises PS021 unless the password''s length is 8 to 1024 bytes.';

create function shell.set_password(user_id uuid, password text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_user(set_password.user_id);
  perform shell.require_password(set_password.password);
  insert into shell.credentials as c (user_id, password_hash)
  values (set_password.user_id, shell.hash_password(set_password.password))
  on conflict on constraint credentials_pkey
  do update set password_hash = excluded.password_hash, changed_at = clock_timestamp();
  -- Who knew the old one is signed in no longer. A program's tokens never were the password's.
  update shell.user_sessions as s set revoked_at = clock_timestamp()
  where s.user_id = set_password.user_id and s.kind = 'session' and s.revoked_at is null;
end
$$;
comment on function shell.set_password(uuid, text) is
  'Gives a user a password, for administrators, and signs the user out everywhere. '
  'Raises PS001 for an unknown user, PS021 for a length other than 8 to 1024 bytes.';

create function shell.new_session(
  user_id uuid, kind text, name text, expires_at timestamptz, out session_id uuid, out token text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What is over goes, some of it whenever something is added, so that there is never much. A day later: by then no
  -- token that was made of it counts. What somebody else removes is left to them.
  delete from shell.user_sessions as s
  where s.id in (
    select o.id from shell.user_sessions as o
    where o.expires_at < clock_timestamp() - interval '1 day'
    order by o.expires_at
    limit 100
    for update skip locked
  );
  token := shell.new_token();
  insert into shell.user_sessions (user_id, kind, name, token_hash, expires_at, user_agent, ip_address)
  values (new_session.user_id, new_session.kind, new_session.name, sha256(convert_to(token, 'UTF8')),
    new_session.expires_at, left(shell.request_header('user-agent'), 512), shell.request_address())
  returning id into session_id;
end
$$;
comment on function shell.new_session(uuid, text, text, timestamptz) is
  'Signs a user in, or makes a program''s token. The token is in the answer only; its hash is kept.';

create function shell.session_of(token text, user_agent text default null, ip inet default null)
returns table (session_id uuid, user_id uuid, username text, role text, expires_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select s.id, s.user_id, u.username, u.role, s.expires_at
  into session_id, user_id, username, role, expires_at
  from shell.user_sessions as s
  join shell.users as u on u.id = s.user_id
  where s.token_hash = sha256(convert_to(session_of.token, 'UTF8'))
    and s.revoked_at is null and s.expires_at > clock_timestamp();
  if not found then
    return;
  end if;

  -- Not at each request: a row a minute is enough to see when it was used.
  update shell.user_sessions as s
  set last_used_at = clock_timestamp(),
      user_agent = coalesce(left(session_of.user_agent, 512), s.user_agent),
      ip_address = coalesce(session_of.ip, s.ip_address)
  where s.id = session_id
    and (s.last_used_at is null or s.last_used_at < clock_timestamp() - interval '1 minute');
  return next;
end
$$;
comment on function shell.session_of(text, text, inet) is
  'Whose a token is, and with which role; no row if it is nobody''s, has expired or was revoked.';

create function shell.access_token(session_id uuid) returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  -- No longer than the session itself.
  with granted as (
    select u.id, u.username, u.role, s.id as session_id, least(now() + interval '1 hour', s.expires_at) as expires_at
    from shell.user_sessions as s
    join shell.users as u on u.id = s.user_id
    where s.id = access_token.session_id
  )
  select json_build_object(
    'token', shell.sign_jwt(jsonb_build_object(
      'sub', g.id, 'role', g.role, 'sid', g.session_id,
      'iat', extract(epoch from now())::bigint, 'exp', extract(epoch from g.expires_at)::bigint)),
    'token_type', 'Bearer', 'expires_at', g.expires_at, 'user_id', g.id, 'username', g.username)
  from granted as g
$$;
comment on function shell.access_token(uuid) is
  'A JSON Web Token for an hour, made of a session or a program''s token, and what a client should know of it.';

create function shell.check_request() returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Every request pays for this: the claims are read once, and there is no join to set up.
  claims constant jsonb := shell.claims();
  session constant uuid := shell.uuid_of(claims ->> 'sid');
begin
  if session is not null and not exists (
    select from shell.user_sessions as s
    where s.id = session and s.revoked_at is null and s.expires_at > clock_timestamp()
      and (select u.role from shell.users as u where u.id = s.user_id) = claims ->> 'role'
  ) then
    perform shell.refuse(401, 'PS019', 'the session has ended', 'Sign in again.');
  end if;
end
$$;
comment on function shell.check_request() is
  'For PostgREST''s db-pre-request: a token whose session was signed out, or whose user was given another role, counts '
  'no more at once, not within the hour.';
