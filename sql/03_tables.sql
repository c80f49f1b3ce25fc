create table shell.users (
  id uuid primary key default gen_random_uuid(),
  username text not null unique,
  role text not null default 'shell_user',
  storage_bytes shell.storage_bytes,
  created_at timestamptz not null default now(),

  constraint username_is_printable check (username ~ '^[^[:cntrl:]]{1,64}$'),
  constraint role_is_a_requests check (role in ('shell_user', 'shell_auditor', 'shell_admin'))
);
comment on table shell.users is 'Who may own sandboxes and submit commands.';
comment on column shell.users.id is 'What every other table and every call names the user by.';
comment on column shell.users.username is 'Shown to people; 1 to 64 characters, none a control character.';
comment on column shell.users.role is
  'The database role of the user''s requests; an administrator says which. It is no right that the user could give.';
comment on column shell.users.storage_bytes is
  'Bytes that the distinct contents of all the user''s files may have; null is the administrator''s maximum.';
comment on column shell.users.created_at is 'When the user was added.';

create table shell.sandboxes (
  id uuid primary key default gen_random_uuid(),
  owner_id uuid not null references shell.users (id),
  name text not null default 'default',
  image text not null default 'host',
  variables shell.variables not null default '{}',
  programs shell.program_list,
  wall_seconds shell.wall_seconds,
  cpu_seconds shell.cpu_seconds,
  memory_bytes shell.memory_bytes,
  processes shell.processes,
  open_files shell.open_files,
  file_size_bytes shell.file_size_bytes,
  disk_bytes shell.disk_bytes,
  output_bytes shell.output_bytes,
  storage_bytes shell.storage_bytes,
  created_at timestamptz not null default now(),

  unique (owner_id, name),
  constraint sandbox_name_is_printable check (name ~ '^[^[:cntrl:]]{1,64}$'),
  constraint image_is_known check (image = 'host')
);
comment on table shell.sandboxes is
  'What its sessions share: owner, base image, limits, first variables. A limit that is null is shell.default_limits().';
comment on column shell.sandboxes.id is 'Its sessions name it by this.';
comment on column shell.sandboxes.owner_id is 'Whose it is.';
comment on column shell.sandboxes.name is 'One name a user; the first sandbox is called default.';
comment on column shell.sandboxes.image is 'The read-only system, by name; "host" is the worker''s own.';
comment on column shell.sandboxes.variables is 'Variables that a new session in this sandbox begins with.';
comment on column shell.sandboxes.programs is
  'The programs that a command may run, besides the shell and what is built into it; null is any.';
comment on column shell.sandboxes.wall_seconds is 'Seconds a command may take by the clock.';
comment on column shell.sandboxes.cpu_seconds is 'CPU seconds its processes may use together.';
comment on column shell.sandboxes.memory_bytes is 'Bytes of private writable memory its processes may have together.';
comment on column shell.sandboxes.processes is 'Processes and threads at a time.';
comment on column shell.sandboxes.open_files is 'Descriptors one process may hold.';
comment on column shell.sandboxes.file_size_bytes is 'Bytes one file may grow to.';
comment on column shell.sandboxes.disk_bytes is 'Bytes in the home folder, /tmp and /dev/shm together.';
comment on column shell.sandboxes.output_bytes is 'Bytes of output kept; a command that prints more is stopped.';
comment on column shell.sandboxes.storage_bytes is
  'Bytes that the files kept of one of its sessions may have; null is the administrator''s maximum.';
comment on column shell.sandboxes.created_at is 'When it was made.';

create table shell.environments (
  id uuid primary key default gen_random_uuid(),
  sandbox_id uuid not null references shell.sandboxes (id),
  user_id uuid not null references shell.users (id),
  name text not null default 'main',
  is_default boolean not null default false,
  parent_id uuid references shell.environments (id),
  forked_from_command_id bigint,
  replay_of uuid references shell.environments (id),
  cwd shell.absolute_path not null default '/home/sandbox',
  env shell.variables not null default '{}',
  shell_state text not null default '',
  tree_id bigint,
  origin_hash shell.sha256,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),

  -- For what shall be of one user with its session.
  constraint session_of_its_user unique (id, user_id),
  constraint session_name_is_printable check (name ~ '^[^[:cntrl:]]{1,64}$'),
  constraint shell_state_fits check (octet_length(shell_state) <= 1048576)
);
comment on table shell.environments is 'Sessions: the state a shell has between two commands.';
comment on column shell.environments.id is 'The session.';
comment on column shell.environments.sandbox_id is 'The sandbox whose limits hold for it.';
comment on column shell.environments.user_id is 'Whose it is.';
comment on column shell.environments.name is 'For people; need not be unique.';
comment on column shell.environments.is_default is
  'The session that submit_command(user_id, command) uses; at most one a user.';
comment on column shell.environments.parent_id is 'The session that this one was forked from.';
comment on column shell.environments.forked_from_command_id is
  'The command whose state this session began with. No foreign key: retention may remove the command, and a dump must load in any order.';
comment on column shell.environments.replay_of is 'The session whose commands this one replays.';
comment on column shell.environments.cwd is 'Working directory of the next command.';
comment on column shell.environments.env is 'Exported variables of the next command, beyond those that every session has.';
comment on column shell.environments.shell_state is
  'Functions, aliases, options, umask and unexported variables, as the text that the shell reads to have them again.';
comment on column shell.environments.tree_id is 'Files of the next command; null is an empty home folder.';
comment on column shell.environments.origin_hash is
  'For a fork, the hash of the command whose state it began with: its own commands are chained to that.';
comment on column shell.environments.created_at is 'When it was made.';
comment on column shell.environments.updated_at is 'When a command last changed its state.';

create unique index environments_one_default on shell.environments (user_id) where is_default;
create index environments_of_user on shell.environments (user_id);
create index environments_of_sandbox on shell.environments (sandbox_id);
create index environments_of_parent on shell.environments (parent_id) where parent_id is not null;
create index environments_replaying on shell.environments (replay_of) where replay_of is not null;

create table shell.workers (
  id bigint generated always as identity primary key,
  name text not null,
  os_user text not null,
  version text not null,
  concurrency int not null,
  started_at timestamptz not null default clock_timestamp(),
  heartbeat_at timestamptz not null default clock_timestamp(),
  lost_since timestamptz,
  stopped_at timestamptz,

  constraint concurrency_is_positive check (concurrency > 0)
);
comment on table shell.workers is 'Every exec-worker process that ever registered.';
comment on column shell.workers.id is 'Half of the lease on what it holds.';
comment on column shell.workers.name is 'host:pid, for people.';
comment on column shell.workers.os_user is 'The operating-system user that the worker runs as.';
comment on column shell.workers.version is 'The version of exec-worker.';
comment on column shell.workers.concurrency is 'Commands that it runs at a time.';
comment on column shell.workers.started_at is 'When it registered.';
comment on column shell.workers.heartbeat_at is 'When the worker last said that it is alive.';
comment on column shell.workers.lost_since is
  'When its connection was first found gone; cleared when it is back. What it holds is rescued after a grace.';
comment on column shell.workers.stopped_at is 'When it said goodbye or was given up for lost.';
create index workers_alive on shell.workers (id) where stopped_at is null;

create table shell.commands (
  id bigint generated always as identity primary key,
  user_id uuid not null,
  environment_id uuid not null,
  command text not null,
  submitted_at timestamptz not null default clock_timestamp(),
  status text not null default 'pending',
  output text,
  exit_code int,
  cwd_snapshot shell.absolute_path,
  env_snapshot shell.variables,
  shell_state_snapshot text,

  failure text,
  failure_reason text,
  signal int,
  stdout text,
  stderr text,
  raw_output bytea,
  output_bytes bigint,
  truncated boolean not null default false,

  claimed_at timestamptz,
  started_at timestamptz,
  finished_at timestamptz,
  duration interval,
  cpu_time interval,
  peak_memory_bytes bigint,
  worker_id bigint,
  attempt int not null default 0,
  cancel_requested_at timestamptz,
  replay_of bigint,
  limits shell.limits,

  cwd_after shell.absolute_path,
  env_after shell.variables,
  shell_state_after text,

  tree_id bigint,
  tree_after bigint,
  not_kept text[],
  action jsonb,
  hash shell.sha256,

  constraint command_fits check (octet_length(command) between 1 and 1048576),
  -- One expression, not a rule each: the server parses every check anew for each insert and update.
  constraint what_goes_with_the_status check (
    case status
      when 'pending' then failure is null and finished_at is null
      when 'running' then failure is null and finished_at is null and worker_id is not null and claimed_at is not null
      when 'done' then failure is null and finished_at is not null and exit_code is not distinct from 0
      when 'failed' then finished_at is not null and (
        failure ~ '^(exit|signal|timeout|out_of_memory|limit|cancelled|refused|worker_lost)$') is true
      else false
    end
  ),
  constraint session_is_its_submitter_s foreign key (environment_id, user_id)
    references shell.environments (id, user_id)
);
comment on table shell.commands is
  'The log and the queue: one row a command, an atomic step of its session. A finished row never changes.';
comment on column shell.commands.id is 'Grows in the order of submission within a session.';
comment on column shell.commands.user_id is 'Who submitted it, to a session of their own.';
comment on column shell.commands.environment_id is 'The session in which it runs.';
comment on column shell.commands.command is 'What the shell runs, as it was submitted.';
comment on column shell.commands.submitted_at is 'When it was submitted.';
comment on column shell.commands.status is 'pending → running → done (exit code 0) | failed (anything else).';
comment on column shell.commands.output is
  'Standard output and error together, in the order they came, as valid UTF-8 (what is not becomes U+FFFD).';
comment on column shell.commands.exit_code is 'The shell''s exit code; 128 + n after signal n; null if it never ran.';
comment on column shell.commands.cwd_snapshot is 'Working directory in which it began; written again at claim.';
comment on column shell.commands.env_snapshot is 'Exported variables with which it began.';
comment on column shell.commands.shell_state_snapshot is 'Shell state with which it began.';
comment on column shell.commands.failure is
  'exit, signal, timeout, out_of_memory, limit, cancelled, refused or worker_lost; null unless failed.';
comment on column shell.commands.failure_reason is 'What happened, in a sentence.';
comment on column shell.commands.signal is 'The signal that ended the shell.';
comment on column shell.commands.stdout is 'Standard output alone.';
comment on column shell.commands.stderr is 'Standard error alone.';
comment on column shell.commands.raw_output is
  'The bytes of output as they came, kept only where the text could not hold them.';
comment on column shell.commands.output_bytes is 'Bytes read from the command, kept or not.';
comment on column shell.commands.truncated is 'True where more was printed than is kept.';
comment on column shell.commands.claimed_at is 'When a worker last took it.';
comment on column shell.commands.started_at is 'When its shell was started.';
comment on column shell.commands.finished_at is 'When it ended.';
comment on column shell.commands.duration is 'From start to end, by the worker''s monotonic clock.';
comment on column shell.commands.cpu_time is 'User and system time of every process it ran.';
comment on column shell.commands.peak_memory_bytes is 'Resident size of its largest process at its largest.';
comment on column shell.commands.worker_id is
  'The worker that holds it, or finished it. No foreign key: each claim would look for its worker and lock it.';
comment on column shell.commands.attempt is
  'How many times it was claimed. With worker_id this is the lease: a write-back under an older one is refused.';
comment on column shell.commands.cancel_requested_at is 'When cancel_command asked its worker to end it.';
comment on column shell.commands.replay_of is 'The command that this one replays.';
comment on column shell.commands.limits is
  'What its submitter asked for; null where nothing. The least of this, sandbox or default, and maximum counts.';
comment on column shell.commands.cwd_after is
  'Working directory it left; null, like the next two, where it left the state as it was.';
comment on column shell.commands.env_after is 'Exported variables it left.';
comment on column shell.commands.shell_state_after is 'Shell state it left.';
-- No foreign keys for these two: each claim would lock a tree. What collects trees looks here.
comment on column shell.commands.tree_id is 'Files with which it began; written at claim; null is an empty home folder.';
comment on column shell.commands.tree_after is 'Files it left; null where it left them as they were.';
comment on column shell.commands.not_kept is
  'What of its files was not kept, as "path: reason": device nodes, sockets and FIFOs.';
comment on column shell.commands.action is
  'Null for what the shell runs. Else what the database does in its turn: write_file or restore_snapshot, with arguments.';
comment on column shell.commands.hash is
  'SHA-256 of the hash before it in the session, of all that this row says, and of its files: see shell.verify_history.';

-- The queue. Rows leave these two as soon as they are claimed or finished, so they stay as small as the work at hand.
create index commands_pending on shell.commands (user_id, environment_id, id) where status = 'pending';
create unique index commands_one_running on shell.commands (environment_id) where status = 'running';

-- The log.
create index commands_of_user on shell.commands (user_id, id);
create index commands_of_session on shell.commands (environment_id, id);
create index commands_beginning_with on shell.commands (tree_id) where tree_id is not null;
create index commands_leaving on shell.commands (tree_after) where tree_after is not null;
create index commands_replaying on shell.commands (replay_of) where replay_of is not null;

-- A page keeps room for what its commands become: else claim and finish each write to some other page of a long
-- history, wherever a gap is, and the first write to a page after a checkpoint is logged whole.
-- Half of a busy log's rows are dead versions of the other half; vacuum by count, not by share of a long history.
alter table shell.commands set (
  fillfactor = 90,
  autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 2000
);

-- A crash loses what was shown of a running command, never what it left: unlogged costs the log nothing.
create unlogged table shell.output_chunks (
  command_id bigint not null references shell.commands (id) on delete cascade,
  seq int not null,
  stream text not null,
  data text not null,
  written_at timestamptz not null default clock_timestamp(),

  primary key (command_id, seq),
  constraint stream_enum check (stream in ('stdout', 'stderr'))
);
comment on table shell.output_chunks is
  'Output of commands that still run, numbered so that a reader goes on from the last it saw; removed when the command ends.';
comment on column shell.output_chunks.command_id is 'The command that printed it.';
comment on column shell.output_chunks.seq is 'Counts from 0 for each command, without gaps.';
comment on column shell.output_chunks.stream is 'stdout or stderr.';
comment on column shell.output_chunks.data is 'What was printed, as text.';
comment on column shell.output_chunks.written_at is 'When it was stored.';

-- A dump carries the rows and the counters of an extension''s tables only if told to.
select pg_catalog.pg_extension_config_dump('shell.users', '');
select pg_catalog.pg_extension_config_dump('shell.sandboxes', '');
select pg_catalog.pg_extension_config_dump('shell.environments', '');
select pg_catalog.pg_extension_config_dump('shell.workers', '');
select pg_catalog.pg_extension_config_dump('shell.commands', '');
select pg_catalog.pg_extension_config_dump('shell.workers_id_seq', '');
select pg_catalog.pg_extension_config_dump('shell.commands_id_seq', '');
