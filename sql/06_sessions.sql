-- Sessions: made at the first command, forked from any finished one, replayed from their start.

create function shell.require_user(user_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from shell.users as u where u.id = require_user.user_id) then
    raise exception using
      errcode = 'PS001',
      message = format('there is no user %s', coalesce(require_user.user_id::text, '(null)')),
      hint = 'Insert a row into shell.users first and use its id.';
  end if;
end
$$;
comment on function shell.require_user(uuid) is 'Raises PS001 unless there is such a user.';

create function shell.require_session(user_id uuid, environment_id uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  owner uuid;
begin
  select e.user_id into owner from shell.environments as e where e.id = require_session.environment_id;
  if not found then
    raise exception using
      errcode = 'PS002',
      message = format('there is no session %s', coalesce(require_session.environment_id::text, '(null)')),
      hint = 'The user''s sessions are in shell.environments.';
  end if;
  if owner <> require_session.user_id then
    raise exception using
      errcode = 'PS003',
      message = format('session %s belongs to another user', require_session.environment_id),
      hint = 'Leave environment_id out to use the user''s own default session.';
  end if;
end
$$;
comment on function shell.require_session(uuid, uuid) is
  'Raises PS002 unless there is such a session, PS003 unless it is that user''s.';

create function shell.require_command(command_id bigint) returns shell.commands
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  found_command shell.commands;
begin
  select c.* into found_command from shell.commands as c where c.id = require_command.command_id;
  if not found then
    raise exception using
      errcode = 'PS006',
      message = format('there is no command %s', coalesce(require_command.command_id::text, '(null)')),
      hint = 'shell.submit_command() returns a command''s id; shell.latest_output(user_id) lists the user''s commands.';
  end if;
  return found_command;
end
$$;
comment on function shell.require_command(bigint) is 'A command''s row. Raises PS006 unless there is one.';

create function shell.default_session(user_id uuid) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  session uuid;
  sandbox uuid;
begin
  select e.id into session
  from shell.environments as e
  where e.user_id = default_session.user_id and e.is_default;
  if found then
    return session;
  end if;

  perform shell.require_user(default_session.user_id);

  -- Two first commands at once: the second waits here and finds the first's session.
  insert into shell.sandboxes (owner_id) values (default_session.user_id)
  on conflict (owner_id, name) do update set name = excluded.name
  returning id into sandbox;

  insert into shell.environments (sandbox_id, user_id, is_default, env)
  select s.id, s.owner_id, true, s.variables from shell.sandboxes as s where s.id = sandbox
  on conflict do nothing
  returning id into session;

  if session is null then
    select e.id into session
    from shell.environments as e
    where e.user_id = default_session.user_id and e.is_default;
  end if;
  return session;
end
$$;
comment on function shell.default_session(uuid) is
  'The user''s default session, made with its sandbox if this is the first use. Raises PS001 for an unknown user.';

create function shell.create_session(user_id uuid, name text default 'main') returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Before the statement that reads it, or that would not see what this makes.
  beside constant uuid := shell.default_session(create_session.user_id);
  session uuid;
begin
  insert into shell.environments (sandbox_id, user_id, name, env)
  select s.id, e.user_id, create_session.name, s.variables
  from shell.environments as e
  join shell.sandboxes as s on s.id = e.sandbox_id
  where e.id = beside
  returning id into session;
  return session;
end
$$;
comment on function shell.create_session(uuid, text) is
  'A further session in the user''s own sandbox; returns its id. Raises PS001 for an unknown user.';

create function shell.fork_session(user_id uuid, source_command_id bigint, after boolean default false)
returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  source shell.commands;
  session uuid;
begin
  perform shell.require_user(fork_session.user_id);

  source := shell.require_command(fork_session.source_command_id);
  perform shell.require_session(fork_session.user_id, source.environment_id);

  if source.status = 'pending' or source.attempt = 0 then
    raise exception using
      errcode = 'PS007',
      message = format('command %s has not begun, so there is no state to fork from', source.id),
      hint = 'Wait for it with shell.wait_command(), or fork from an earlier command.';
  end if;
  if fork_session.after and source.status = 'running' then
    raise exception using
      errcode = 'PS007',
      message = format('command %s is still running, so it has left no state to fork from', source.id),
      hint = 'Wait for it with shell.wait_command(), or fork from where it began (after => false).';
  end if;

  insert into shell.environments
    (sandbox_id, user_id, name, parent_id, forked_from_command_id, cwd, env, shell_state, tree_id, origin_hash)
  select
    e.sandbox_id, e.user_id, format('fork of %s', source.id), e.id, source.id,
    case when fork_session.after then coalesce(source.cwd_after, source.cwd_snapshot) else source.cwd_snapshot end,
    case when fork_session.after then coalesce(source.env_after, source.env_snapshot) else source.env_snapshot end,
    case when fork_session.after then coalesce(source.shell_state_after, source.shell_state_snapshot)
      else source.shell_state_snapshot end,
    case when fork_session.after then coalesce(source.tree_after, source.tree_id) else source.tree_id end,
    -- One that still runs has no hash yet, but those before it have.
    coalesce(source.hash, sha256(shell.hash_before(source.environment_id, source.id)))
  from shell.environments as e
  where e.id = source.environment_id
  returning id into session;
  return session;
end
$$;
comment on function shell.fork_session(uuid, bigint, boolean) is
  'A new session that begins as the command began, or with after => true as it ended; returns its id.';

create function shell.replay_session(environment_id uuid) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  first_command shell.commands;
  replay uuid;
begin
  select c.* into first_command
  from shell.commands as c
  where c.environment_id = replay_session.environment_id and c.started_at is not null
  order by c.id
  limit 1;
  if not found then
    perform shell.require_session(
      (select e.user_id from shell.environments as e where e.id = replay_session.environment_id),
      replay_session.environment_id);
    raise exception using
      errcode = 'PS007',
      message = format('no command of session %s has begun, so there is nothing to replay', replay_session.environment_id),
      hint = 'Submit a command to it first.';
  end if;

  replay := shell.fork_session(first_command.user_id, first_command.id);
  update shell.environments as e
  set replay_of = replay_session.environment_id, name = left('replay of ' || o.name, 64)
  from shell.environments as o
  where e.id = replay and o.id = replay_session.environment_id;

  insert into shell.commands
    (user_id, environment_id, command, action, limits, replay_of, cwd_snapshot, env_snapshot, shell_state_snapshot)
  select c.user_id, replay, c.command, c.action, c.limits, c.id, e.cwd, e.env, e.shell_state
  from shell.commands as c
  join shell.environments as e on e.id = replay
  where c.environment_id = replay_session.environment_id
    and c.started_at is not null
    and c.status in ('done', 'failed')
  order by c.id;

  notify shell_commands;
  return replay;
end
$$;
comment on function shell.replay_session(uuid) is
  'Forks from the session''s start and submits its finished commands again, in order; shell.replay_differences compares. Returns the new session''s id.';
