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

-- The limits of a command, each a type of its own, so that its range is written once for every column that holds
-- it. The launcher has the same ranges: exec-worker/confine/src/limits.rs.
create domain shell.wall_seconds as bigint
  constraint wall_seconds_in_range check (value between 1 and 86400);
comment on domain shell.wall_seconds is '1 to 86400';
create domain shell.cpu_seconds as bigint
  constraint cpu_seconds_in_range check (value between 1 and 86400);
comment on domain shell.cpu_seconds is '1 to 86400';
create domain shell.memory_bytes as bigint
  constraint memory_bytes_in_range check (value between 16777216 and 1099511627776);
comment on domain shell.memory_bytes is '16777216 to 1099511627776';
create domain shell.processes as bigint
  constraint processes_in_range check (value between 1 and 32768);
comment on domain shell.processes is '1 to 32768';
create domain shell.open_files as bigint
  constraint open_files_in_range check (value between 32 and 65536);
comment on domain shell.open_files is '32 to 65536';
create domain shell.file_size_bytes as bigint
  constraint file_size_bytes_in_range check (value between 65536 and 1099511627776);
comment on domain shell.file_size_bytes is '65536 to 1099511627776';
create domain shell.disk_bytes as bigint
  constraint disk_bytes_in_range check (value between 65536 and 1099511627776);
comment on domain shell.disk_bytes is '65536 to 1099511627776';
create domain shell.output_bytes as bigint
  constraint output_bytes_in_range check (value between 1 and 67108864);
comment on domain shell.output_bytes is '1 to 67108864';

create type shell.limits as (
  wall_seconds shell.wall_seconds,
  cpu_seconds shell.cpu_seconds,
  memory_bytes shell.memory_bytes,
  processes shell.processes,
  open_files shell.open_files,
  file_size_bytes shell.file_size_bytes,
  disk_bytes shell.disk_bytes,
  output_bytes shell.output_bytes
);
comment on type shell.limits is 'What a command may use. What is null is left to others: sandbox, default, maximum.';

create function shell.are_program_paths(paths text[]) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(bool_and(p is not null and p ~ '^/' and octet_length(p) < 4096 and p !~ '/\.{0,2}(/|$)'), true)
  from unnest(paths) as p
$$;
comment on function shell.are_program_paths(text[]) is
  'True where each is the absolute path of a file, by its form, without "." and "..".';

create domain shell.program_list as text[]
  constraint programs_are_few_enough check (cardinality(value) <= 1000)
  constraint programs_are_absolute_paths check (shell.are_program_paths(value));
comment on domain shell.program_list is 'Absolute paths of programs, 1000 at most; an empty list is none.';

-- Files.

create domain shell.sha256 as bytea
  constraint sha256_has_32_bytes check (octet_length(value) = 32);
comment on domain shell.sha256 is 'A SHA-256.';

create domain shell.relative_path as bytea
  constraint path_fits check (octet_length(value) between 1 and 4095)
  constraint path_stays_within check (
    position('\x00'::bytea in value) = 0
    and position('\x2f2f'::bytea in '\x2f'::bytea || value || '\x2f'::bytea) = 0
    and position('\x2f2e2f'::bytea in '\x2f'::bytea || value || '\x2f'::bytea) = 0
    and position('\x2f2e2e2f'::bytea in '\x2f'::bytea || value || '\x2f'::bytea) = 0
  );
comment on domain shell.relative_path is
  'A path below a home folder, as bytes: no / at either end, no NUL, no empty part, no "." and "..".';

create domain shell.storage_bytes as bigint
  constraint storage_bytes_in_range check (value between 0 and 1125899906842624);
comment on domain shell.storage_bytes is '0 to 1125899906842624';

create type shell.storage as (
  session_bytes bigint,
  user_bytes bigint
);
comment on type shell.storage is 'What files may have together: those of a session, and all of a user.';

create type shell.claimed_command as (
  command_id bigint,
  attempt int,
  user_id uuid,
  environment_id uuid,
  command text,
  cwd text,
  env jsonb,
  shell_state text,
  programs text[], -- noqa: LT01
  wall_seconds bigint,
  cpu_seconds bigint,
  memory_bytes bigint,
  processes bigint,
  open_files bigint,
  file_size_bytes bigint,
  disk_bytes bigint,
  output_bytes bigint,
  tree bigint
);
comment on type shell.claimed_command is 'What a worker is handed when it claims a command.';

-- What a worker writes back; age_us is how long ago the command began, so that only one clock counts.
-- cwd, env and shell_state after are all null when they did not change, tree_after when the files did not.
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
  shell_state_after text,
  tree_after bigint,
  not_kept text[] -- noqa: LT01
);
comment on type shell.command_result is 'How a command ended, and the state it left: what a worker writes back.';
