-- What a user does with commands: submit, read, wait, cancel.

create function shell.require_limits(limits jsonb, environment_id uuid) returns shell.limits
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted shell.limits;
  wrong text;
begin
  if jsonb_typeof(require_limits.limits) <> 'object' then
    wrong := 'the limits are not a JSON object';
  else
    select
      case
        when a.attname is null then format('there is no limit "%s"', left(l.key, 40))
        else format('%s is not a positive whole number: %s', l.key, left(l.value::text, 40))
      end into wrong
    from jsonb_each(require_limits.limits) as l
    left join pg_attribute as a on a.attrelid = 'shell.limits'::regclass and a.attname = l.key
    where a.attname is null or l.value::text !~ '^[1-9][0-9]{0,15}$'
    limit 1;
  end if;

  if wrong is null then
    begin
      wanted := jsonb_populate_record(null::shell.limits, require_limits.limits);
    exception when check_violation then
      get stacked diagnostics wrong = pg_datatype_name;
      wrong := format('%s is out of its range: %s', wrong, require_limits.limits ->> wrong);
    end;
  end if;

  if wrong is null then
    select format('%s is more than the %s of the session''s sandbox: %s', l.key, to_jsonb(s) ->> l.key, l.value)
    into wrong
    from jsonb_each(require_limits.limits) as l, shell.environments as e
    join shell.sandboxes as s on s.id = e.sandbox_id
    where e.id = require_limits.environment_id and l.value::bigint > (to_jsonb(s) ->> l.key)::bigint
    limit 1;
  end if;

  if wrong is not null then
    raise exception using
      errcode = 'PS016',
      message = wrong,
      hint = format(
        'Give a JSON object of whole numbers, no more than the sandbox''s own, with any of: %s.',
        (select string_agg(format('%s (%s)', a.attname, obj_description(a.atttypid, 'pg_type')), ', ' order by a.attnum)
         from pg_attribute as a where a.attrelid = 'shell.limits'::regclass));
  end if;
  return case when require_limits.limits <> '{}' then wanted end;
end
$$;
comment on function shell.require_limits(jsonb, uuid) is
  'The limits that a JSON object asks for in a session; null for none. '
  'Raises PS016 where it is no such object, or asks for more than the sandbox''s own.';

create function shell.submit_command(
  user_id uuid, command text, environment_id uuid default null, limits jsonb default null
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  session uuid := submit_command.environment_id;
  wanted shell.limits;
  command_id bigint;
begin
  if submit_command.command is null or submit_command.command !~ '\S' then
    raise exception using
      errcode = 'PS004',
      message = 'the command is empty',
      hint = 'Pass the text that the shell shall run.';
  end if;
  if octet_length(submit_command.command) > 1048576 then
    raise exception using
      errcode = 'PS005',
      message = format('the command is %s bytes long; 1048576 are allowed', octet_length(submit_command.command)),
      hint = 'Put the data into a file and let the command read it.';
  end if;

  if session is null then
    session := shell.default_session(submit_command.user_id);
  elsif not exists (
    select from shell.environments as e where e.id = session and e.user_id = submit_command.user_id
  ) then
    -- These say which of the two is wrong.
    perform shell.require_user(submit_command.user_id);
    perform shell.require_session(submit_command.user_id, session);
  end if;
  if submit_command.limits is not null then
    wanted := shell.require_limits(submit_command.limits, session);
  end if;

  -- Ids of one session must become visible in their order, so its submitters take turns until commit.
  -- A lock of its own: a row lock here would make the worker's write-back wait for a user's transaction.
  perform pg_advisory_xact_lock(hashtextextended('pg_shell submit ' || session::text, 0));

  insert into shell.commands
    (user_id, environment_id, command, limits, cwd_snapshot, env_snapshot, shell_state_snapshot)
  select submit_command.user_id, e.id, submit_command.command, wanted, e.cwd, e.env, e.shell_state
  from shell.environments as e
  where e.id = session
  returning id into command_id;

  notify shell_commands;
  return command_id;
end
$$;
comment on function shell.submit_command(uuid, text, uuid, jsonb) is
  'Queues a command in the session (the user''s default one unless named) and returns its id. '
  'limits is an object of shell.limits'' keys: less than the command would have without. '
  'Raises PS001 to PS005 for an unknown user, an unknown or foreign session, an empty or over-long command, '
  'PS016 for limits that cannot be.';

create function shell.latest_output(user_id uuid, n int default 20)
returns table (id bigint, command text, output text, exit_code int, status text, submitted_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_user(latest_output.user_id);
  return query
    select c.id, c.command, c.output, c.exit_code, c.status, c.submitted_at
    from shell.commands as c
    -- Not "=": the planner would then look for this user from the end of everybody's log, far back for some.
    where c.user_id between latest_output.user_id and latest_output.user_id
    order by c.user_id desc, c.id desc
    limit latest_output.n;
end
$$;
comment on function shell.latest_output(uuid, int) is 'The user''s last n commands, the newest first. Raises PS001 for an unknown user.';

create function shell.wait_command(command_id bigint, timeout interval default '30 seconds')
returns shell.commands
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  deadline constant timestamptz := clock_timestamp() + coalesce(wait_command.timeout, '30 seconds');
  pause double precision := 0.001;
  found_command shell.commands;
  written_here boolean;
begin
  loop
    found_command := shell.require_command(wait_command.command_id);
    if found_command.status in ('done', 'failed') or clock_timestamp() >= deadline then
      return found_command;
    end if;

    select c.xmin = pg_current_xact_id_if_assigned()::xid into written_here
    from shell.commands as c where c.id = wait_command.command_id;
    if written_here or current_setting('transaction_isolation') <> 'read committed' then
      raise exception using
        errcode = 'PS008',
        message = format('this transaction can never see command %s end', wait_command.command_id),
        hint = 'Commit the transaction that submitted it, then wait in one of its own (READ COMMITTED).';
    end if;

    perform pg_sleep(least(pause, greatest(0.0, extract(epoch from deadline - clock_timestamp()))));
    pause := least(pause * 1.5, 0.05);
  end loop;
end
$$;
comment on function shell.wait_command(bigint, interval) is
  'Waits until the command has finished and returns its row; after the timeout, the row as it stands.';

create function shell.cancel_command(command_id bigint) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  target shell.commands;
begin
  -- Locked before it is read, so that it stays as it is read.
  perform from shell.commands as c where c.id = cancel_command.command_id for update;
  target := shell.require_command(cancel_command.command_id);

  if target.status = 'pending' then
    update shell.commands as c
    set status = 'failed', failure = 'cancelled', failure_reason = 'The command was cancelled before it began.',
        finished_at = clock_timestamp(), cancel_requested_at = clock_timestamp()
    where c.id = target.id;
    perform pg_notify('shell_output', target.id::text);
  elsif target.status = 'running' then
    update shell.commands as c set cancel_requested_at = clock_timestamp() where c.id = target.id;
    perform pg_notify('shell_cancel', target.id::text);
  end if;
  return target.status in ('pending', 'running');
end
$$;
comment on function shell.cancel_command(bigint) is
  'Ends a command: a waiting one at once, a running one through its worker. False if it had already finished.';
