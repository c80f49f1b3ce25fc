-- The REST interface. What reads is plain SQL under the caller's own rights and the policies of the tables; most of it
-- is inlined, so that what the caller filters by reaches the index. That forbids it to set search_path: every name in
-- it is qualified. What acts runs as its owner.
--
-- Ranges of one value, not "=": the planner would look for this user or session from the end of everybody's log.

create view shell_api.command_log with (security_invoker) as
select
  c.id, c.user_id, c.environment_id, c.command, c.output, c.exit_code, c.status, c.failure, c.failure_reason, c.signal,
  c.truncated, c.output_bytes, c.submitted_at, c.started_at, c.finished_at, c.duration, c.cpu_time, c.peak_memory_bytes,
  c.cwd_snapshot::text as cwd_snapshot, c.cwd_after::text as cwd_after, c.replay_of, c.attempt, c.worker_id
from shell.commands as c;
comment on view shell_api.command_log is 'The audit log: every command that the reader may see.';

create view shell_api.sessions with (security_invoker) as
select
  e.id, e.user_id, e.name, e.is_default, e.cwd::text as cwd, e.parent_id, e.forked_from_command_id, e.replay_of,
  e.created_at, e.updated_at,
  latest.id as last_command_id, latest.exit_code as last_exit_code, latest.status as last_status
from shell.environments as e
left join lateral (
  select c.id, c.exit_code, c.status
  from shell.commands as c
  where c.environment_id between e.id and e.id
  order by c.environment_id desc, c.id desc
  limit 1
) as latest on true;
comment on view shell_api.sessions is 'Sessions, each with its last command.';

create view shell_api.replay_differences with (security_invoker) as
select
  d.replay_id, d.original_id, d.original_command_id, d.replay_command_id, d.command, d.replay_status,
  d.original_exit_code, d.replay_exit_code, d.original_output, d.replay_output, d.differs, d.files_differ
from shell.replay_differences as d;
comment on view shell_api.replay_differences is 'Each replayed command beside its original.';

create view shell_api.usage with (security_invoker) as
select u.user_id, u.username, u.commands, u.failed, u.duration, u.cpu_time, u.output_bytes, u.last_submitted_at
from shell.user_usage as u;
comment on view shell_api.usage is 'What each user has used.';

create view shell_api.command_metrics with (security_invoker) as
select
  m.id, m.user_id, m.environment_id, m.status, m.failure, m.submitted_at, m.queue_time, m.duration, m.cpu_time,
  m.peak_memory_bytes, m.output_bytes, m.truncated, m.attempt
from shell.command_metrics as m;
comment on view shell_api.command_metrics is 'Timing, output size and memory, a row a command.';

create type shell_api.output_chunk as (seq int, stream text, data text);
comment on type shell_api.output_chunk is 'Output of a running command, numbered from 0.';

-- Commands.

create function shell_api.submit_command(
  command text, user_id uuid default null, environment_id uuid default null, limits jsonb default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  acting constant uuid := shell.acting_user(submit_command.user_id);
begin
  if submit_command.environment_id is not null then
    perform shell.require_visible_session(submit_command.environment_id);
  end if;
  return shell.submit_command(acting, submit_command.command, submit_command.environment_id, submit_command.limits);
end
$$;
comment on function shell_api.submit_command(text, uuid, uuid, jsonb) is
  'Queues a command in a session, the default one unless named, and returns its id.';

create function shell_api.latest_output(user_id uuid default null, n int default 20)
returns setof shell_api.command_log
language sql stable
as $$
  select
    l.id, u.id as user_id, l.environment_id, l.command, l.output, l.exit_code, l.status, l.failure, l.failure_reason,
    l.signal, l.truncated, l.output_bytes, l.submitted_at, l.started_at, l.finished_at, l.duration, l.cpu_time,
    l.peak_memory_bytes, l.cwd_snapshot, l.cwd_after, l.replay_of, l.attempt, l.worker_id
  from shell.users as u
  cross join lateral (
    select c.*
    from shell_api.command_log as c
    where c.user_id between u.id and u.id
    order by c.user_id desc, c.id desc
    limit latest_output.n
  ) as l
  where (latest_output.user_id is null or u.id = latest_output.user_id)
    and (select shell.require_reader(latest_output.user_id))
  order by l.id desc
$$;
comment on function shell_api.latest_output(uuid, int) is
  'The last n commands of each user whom the request sees, the newest first. user_id is a filter, as argument and as '
  'user_id=eq.…, never an identity.';

create function shell_api.wait_command(command_id bigint, timeout interval default '30 seconds')
returns shell_api.command_log
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  answer shell_api.command_log;
begin
  perform shell.require_visible_command(wait_command.command_id);
  -- A request that waits holds a connection.
  perform shell.wait_command(wait_command.command_id, least(wait_command.timeout, '1 minute'));
  select l.* into answer from shell_api.command_log as l where l.id = wait_command.command_id;
  return answer;
end
$$;
comment on function shell_api.wait_command(bigint, interval) is
  'Waits until the command has finished, a minute at most, and returns it; after the timeout, as it stands.';

create function shell_api.cancel_command(command_id bigint) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_command(cancel_command.command_id);
  return shell.cancel_command(cancel_command.command_id);
end
$$;
comment on function shell_api.cancel_command(bigint) is 'Ends a command; false if it had already finished.';

create function shell_api.output_since(command_id bigint, seq int default -1)
returns setof shell_api.output_chunk
language sql stable
as $$
  select o.seq, o.stream, o.data
  from shell.output_chunks as o
  where o.command_id = output_since.command_id and o.seq > output_since.seq
    and (select shell.require_visible_command(output_since.command_id))
  order by o.seq
$$;
comment on function shell_api.output_since(bigint, int) is
  'What a running command has printed after this chunk, in order; nothing once it has ended.';

-- Sessions.

create function shell_api.create_session(name text default 'main', user_id uuid default null) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return shell.create_session(shell.acting_user(create_session.user_id), create_session.name);
end
$$;
comment on function shell_api.create_session(text, uuid) is 'A further session; returns its id.';

create function shell_api.rename_session(environment_id uuid, name text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(rename_session.environment_id);
  update shell.environments as e set name = rename_session.name where e.id = rename_session.environment_id;
exception when check_violation or not_null_violation then
  raise exception using
    errcode = 'PS023',
    message = 'no session can have this name',
    hint = 'Give it 1 to 64 characters, none of them a control character.';
end
$$;
comment on function shell_api.rename_session(uuid, text) is
  'Gives a session another name, which need not be the only one of its kind. Raises PS023 for what is no name.';

create function shell_api.fork_session(
  source_command_id bigint, user_id uuid default null, after boolean default false
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  acting constant uuid := shell.acting_user(fork_session.user_id);
begin
  perform shell.require_visible_command(fork_session.source_command_id);
  return shell.fork_session(acting, fork_session.source_command_id, coalesce(fork_session.after, false));
end
$$;
comment on function shell_api.fork_session(bigint, uuid, boolean) is
  'A new session that begins as the command began, or with after as it ended; returns its id.';

create function shell_api.replay_session(environment_id uuid) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(replay_session.environment_id);
  return shell.replay_session(replay_session.environment_id);
end
$$;
comment on function shell_api.replay_session(uuid) is
  'Submits the commands of a session again, in a new one from its start; returns the new session''s id.';

create function shell_api.list_sessions(user_id uuid default null) returns setof shell_api.sessions
language sql stable
as $$
  select s.*
  from shell_api.sessions as s
  where (list_sessions.user_id is null or s.user_id = list_sessions.user_id)
    and (select shell.require_reader(list_sessions.user_id))
  order by s.created_at, s.id
$$;
comment on function shell_api.list_sessions(uuid) is 'The sessions that the request sees, the oldest first.';

create function shell_api.session_commands(environment_id uuid, before bigint default null, n int default 100)
returns setof shell_api.command_log
language sql stable
as $$
  select l.*
  from shell_api.command_log as l
  where l.environment_id between session_commands.environment_id and session_commands.environment_id
    and l.id < coalesce(session_commands.before, 9223372036854775807)
    and (select shell.require_visible_session(session_commands.environment_id))
  order by l.environment_id desc, l.id desc
  limit session_commands.n
$$;
comment on function shell_api.session_commands(uuid, bigint, int) is
  'The last n commands of a session, or of those before one, the newest first.';

create function shell_api.replay_differences(environment_id uuid) returns setof shell_api.replay_differences
language sql stable
as $$
  select d.*
  from shell_api.replay_differences as d
  where d.replay_id = replay_differences.environment_id
    and (select shell.require_visible_session(replay_differences.environment_id))
  order by d.replay_command_id
$$;
comment on function shell_api.replay_differences(uuid) is 'A replay''s commands beside the originals, in order.';

-- Audit and figures.

-- By way of the users: a reader of its own log is one user, whose part of it is an index in the order of ids. The log
-- alone would be read from the end of everybody's, until it holds enough of that user; so it still is where the planner
-- knows of some ten users only, for it takes it for granted that theirs are everywhere.
create function shell_api.audit_log() returns setof shell_api.command_log
language sql stable
as $$ select l.* from shell.users as u join shell_api.command_log as l on l.user_id = u.id $$;
comment on function shell_api.audit_log() is 'Every command that the request sees; filter, order and limit it.';

create function shell_api.usage() returns setof shell_api.usage
language sql stable
as $$ select u.* from shell_api.usage as u order by u.username $$;
comment on function shell_api.usage() is 'What each user whom the request sees has used.';

create function shell_api.metrics(environment_id uuid default null, n int default 500)
returns setof shell_api.command_metrics
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  own constant uuid := shell.current_user_id();
begin
  if metrics.environment_id is not null then
    perform shell.require_visible_session(metrics.environment_id);
    return query
      select m.* from shell_api.command_metrics as m
      where m.environment_id between metrics.environment_id and metrics.environment_id
      order by m.environment_id desc, m.id desc
      limit metrics.n;
  elsif shell.reads_all() then
    return query select m.* from shell_api.command_metrics as m order by m.id desc limit metrics.n;
  else
    return query
      select m.* from shell_api.command_metrics as m
      where m.user_id between own and own
      order by m.user_id desc, m.id desc
      limit metrics.n;
  end if;
end
$$;
comment on function shell_api.metrics(uuid, int) is 'Figures of the last n commands, of all or of one session.';

-- Signing in.

create function shell_api.whoami() returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select json_build_object(
    'user_id', shell.current_user_id(),
    'username', (select u.username from shell.users as u where u.id = shell.current_user_id()),
    'role', current_user)
$$;
comment on function shell_api.whoami() is 'Who the request is from.';

create function shell_api.sign_in(username text, password text) returns json
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  given constant text := left(coalesce(sign_in.username, ''), 64);
  known shell.users;
  hash text;
  session record;
  expires constant timestamptz := now() + interval '14 days';
begin
  -- Without a secret nobody can sign in, whatever the password.
  perform shell.sign_jwt('{}');

  if not shell.may_try_password(given) then
    return shell.answer_too_many();
  end if;

  select u.* into known from shell.users as u where u.username = sign_in.username;
  select c.password_hash into hash from shell.credentials as c where c.user_id = known.id;
  -- What is no password is not hashed. Whether the user is known makes no difference: no hash costs as much as one.
  if coalesce(octet_length(sign_in.password), 0) not between 8 and 1024
    or not shell.password_matches(hash, sign_in.password)
  then
    perform shell.count_failure(given);
    return shell.answer_error(
      401, 'PS018', 'wrong user name or password', 'Check both; an administrator can set a new password.');
  end if;

  delete from shell.sign_in_attempts as a where a.username = given;
  session := shell.new_session(known.id, 'session', 'sign-in', expires);
  return (shell.access_token(session.session_id)::jsonb
    || jsonb_build_object('session_token', session.token, 'session_expires_at', expires))::json;
end
$$;
comment on function shell_api.sign_in(text, text) is
  'A JSON Web Token for an hour, and a session''s token for two weeks. Wrong: status 401, PS018, whether or not there is '
  'such a user. After ten failures for a name, or fifty from an address, within a quarter of an hour: 429, PS017.';

create function shell_api.sign_out() returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  update shell.user_sessions as s set revoked_at = clock_timestamp()
  where s.id = shell.uuid_of(shell.claims() ->> 'sid') and s.user_id = shell.current_user_id()
    and s.revoked_at is null
$$;
comment on function shell_api.sign_out() is 'Ends the session that the request''s token was made of.';

create function shell_api.sign_out_everywhere() returns int
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  with ended as (
    update shell.user_sessions as s set revoked_at = clock_timestamp()
    where s.user_id = shell.current_user_id() and s.kind = 'session' and s.revoked_at is null
      and s.expires_at > clock_timestamp()
    returning s.id
  )
  select count(*)::int from ended
$$;
comment on function shell_api.sign_out_everywhere() is
  'Ends all sessions of the user, this one too, and returns how many; programs'' tokens stay.';

create function shell_api.exchange_token(token text) returns json
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  session uuid;
begin
  select s.session_id into session
  from shell.session_of(exchange_token.token, shell.request_header('user-agent'), shell.request_address()) as s;
  if not found then
    perform shell.refuse(401, 'PS019', 'this token is nobody''s', 'It may have expired or been revoked; make a new one.');
  end if;
  return shell.access_token(session);
end
$$;
comment on function shell_api.exchange_token(text) is
  'A JSON Web Token for an hour, for a program''s or a session''s token. Else status 401, PS019.';

create function shell_api.create_token(name text, expires_in interval default '1 year') returns json
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  expires constant timestamptz := now() + coalesce(create_token.expires_in, '1 year');
  made record;
begin
  if expires <= now() or expires > now() + interval '10 years' then
    raise exception using
      errcode = 'PS022',
      message = format('a token cannot live for %s', create_token.expires_in),
      hint = 'Give more than nothing, and 10 years at most.';
  end if;
  made := shell.new_session(shell.acting_user(null), 'token', create_token.name, expires);
  return json_build_object(
    'id', made.session_id, 'name', create_token.name, 'token', made.token, 'expires_at', expires);
end
$$;
comment on function shell_api.create_token(text, interval) is 'A token for a program, which is shown this once.';

create function shell_api.list_tokens()
returns table (
  id uuid, kind text, name text, created_at timestamptz, expires_at timestamptz, last_used_at timestamptz,
  user_agent text, ip_address inet
)
language sql stable
as $$
  select s.id, s.kind, s.name, s.created_at, s.expires_at, s.last_used_at, s.user_agent, s.ip_address
  from shell.user_sessions as s
  where s.user_id = shell.current_user_id() and s.revoked_at is null and s.expires_at > now()
  order by s.created_at desc, s.id
$$;
comment on function shell_api.list_tokens() is 'Where the user is signed in, and the user''s tokens, the newest first.';

create function shell_api.revoke_token(token_id uuid) returns boolean
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  with revoked as (
    update shell.user_sessions as s set revoked_at = clock_timestamp()
    where s.id = revoke_token.token_id and s.revoked_at is null
      and (s.user_id = shell.current_user_id() or shell.is_admin())
    returning s.id
  )
  select exists (select from revoked)
$$;
comment on function shell_api.revoke_token(uuid) is
  'Ends a session or a token of the user''s own, for an administrator anybody''s; false where there is none.';

create function shell_api.change_password(old_password text, new_password text) returns json
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  acting constant uuid := shell.acting_user(null);
  name constant text := (select left(u.username, 64) from shell.users as u where u.id = acting);
  hash text;
begin
  perform shell.require_password(change_password.new_password);
  -- As when signing in: a stolen session is no way to try many.
  if not shell.may_try_password(name) then
    return shell.answer_too_many();
  end if;
  select c.password_hash into hash from shell.credentials as c where c.user_id = acting;
  if coalesce(octet_length(change_password.old_password), 0) not between 8 and 1024
    or not shell.password_matches(hash, change_password.old_password)
  then
    perform shell.count_failure(name);
    return shell.answer_error(403, 'PS018', 'the old password is wrong', 'An administrator can set a new one.');
  end if;
  update shell.credentials as c
  set password_hash = shell.hash_password(change_password.new_password), changed_at = clock_timestamp()
  where c.user_id = acting;
  update shell.user_sessions as s set revoked_at = clock_timestamp()
  where s.user_id = acting and s.kind = 'session' and s.revoked_at is null
    and s.id is distinct from shell.uuid_of(shell.claims() ->> 'sid');
  return null;
end
$$;
comment on function shell_api.change_password(text, text) is
  'A new password for the user, who is signed out everywhere else; tokens stay. Null, or as of sign_in an error: status '
  '403, PS018, for a wrong old one, which counts as a failure to sign in; 429, PS017. Raises PS021 for the new one''s length.';
