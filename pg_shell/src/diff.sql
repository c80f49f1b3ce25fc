-- Comparing texts, written in Rust.

create function shell.unified_diff(old bytea, new bytea, old_name text, new_name text) returns text
language c immutable parallel safe cost 10000
as 'MODULE_PATHNAME', 'pg_shell_unified_diff';
comment on function shell.unified_diff(bytea, bytea, text, text) is
  'What differs between two texts, as diff -u prints it; nothing where nothing does. Null is a file that is not there.';
