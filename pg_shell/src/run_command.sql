-- One confined command, inside the caller's transaction. Unlike the functions before it this one is
-- written in Rust; the grants after it leave it to the role shell_runner.

create function shell.run_command(
  cwd text, env jsonb, command text, limits jsonb default null, out exit_code int, out output text
)
language c volatile parallel unsafe cost 100000
as 'MODULE_PATHNAME', 'pg_shell_run_command';
comment on function shell.run_command(text, jsonb, text, jsonb) is
  'Runs a command in a confined shell and waits for it, within the caller''s transaction. '
  'cwd is an absolute path; env an object of strings; output is standard output and error together, in '
  'the order they came; what is not text in it, NUL included, is U+FFFD. exit_code is 128 + n after signal n. '
  'limits is an object of shell.limits'' keys; the least of it, the settings pg_shell.timeout and so on, and '
  'pg_shell.max_limits counts. A limit that ended the command is told by a warning, and output holds what was kept; '
  'exit_code is then 124 for time, 137 for output. Files it writes are gone when it returns. '
  'Cancel, statement_timeout and terminate end the command and every process it started. '
  'Raises PS004, PS005, PS010 to PS014, and PS016. The role shell_runner may call it, and nobody else; it may not be called in a parallel worker.';
