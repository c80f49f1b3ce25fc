-- Shapes that more than one table or function shares, each rule written once.

create domain shell.absolute_path as text
  constraint absolute_path_starts_with_slash check (value like '/%')
  constraint absolute_path_fits_path_max check (octet_length(value) < 4096);
comment on domain shell.absolute_path is 'A path that begins with / and fits PATH_MAX.';

create domain shell.variables as jsonb
  constraint variables_are_strings check (
    jsonb_typeof(value) = 'object'
    and not value @? '$.keyvalue() ? (@.key like_regex "^$|=" || @.value.type() != "string")'
  )
  constraint variables_fit check (octet_length(value::text) <= 1048576);
comment on domain shell.variables is
  'Environment variables: a JSON object of strings; names are not empty and hold no =; 1 MiB at most.';

-- What a worker is handed when it claims a command.
create type shell.claimed_command as (
  command_id bigint,
  attempt int,
  user_id uuid,
  environment_id uuid,
  command text,
  cwd text,
  env jsonb,
  shell_state text,
  wall_seconds int,
  cpu_seconds int,
  memory_bytes bigint,
  processes int,
  open_files int,
  file_size_bytes bigint,
  output_bytes bigint
);

-- What a worker writes back; age_us is how long ago the command began, so that only one clock counts.
-- The three *_after fields are all null when the state did not change.
create type shell.command_result as (
  command_id bigint,
  attempt int,
  failure text,
  failure_reason text,
  exit_code int,
  signal int,
  output text,
  stdout text,
  stderr text,
  raw_output text,
  output_bytes bigint,
  truncated boolean,
  age_us bigint,
  duration_us bigint,
  cpu_us bigint,
  peak_memory_bytes bigint,
  cwd_after text,
  env_after jsonb,
  shell_state_after text
);
