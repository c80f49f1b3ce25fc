-- What a worker does. Its role may call these and touch nothing else.
--
-- A worker is alive while its connection holds the advisory lock of its id: a crash, of the process or of
-- the host, frees it. The lease on a command is (worker_id, attempt).

create function shell.worker_lock(worker_id bigint) returns bigint
language sql immutable strict
set search_path = pg_catalog, pg_temp
as $$ select hashtextextended('pg_shell worker ' || worker_id::text, 0) $$;
comment on function shell.worker_lock(bigint) is 'The advisory lock that a living worker holds.';

create function shell.register_worker(name text, os_user text, version text, concurrency int) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  worker bigint;
begin
  insert into shell.workers as w (name, os_user, version, concurrency)
  values (register_worker.name, register_worker.os_user, register_worker.version, register_worker.concurrency)
  returning w.id into worker;
  perform pg_advisory_lock(shell.worker_lock(worker));
  return worker;
end
$$;
comment on function shell.register_worker(text, text, text, int) is
  'Adds a worker, held alive by the calling connection; returns its id.';

create function shell.resume_worker(worker_id bigint, holding bigint[], max_attempts int) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_lock(shell.worker_lock(resume_worker.worker_id));
  update shell.workers as w
  set heartbeat_at = clock_timestamp(), lost_since = null
  where w.id = resume_worker.worker_id and w.stopped_at is null;
  if not found then
    return false;
  end if;
  -- A claim whose answer was lost with the old connection: the worker does not know that it holds it.
  perform shell.release_commands(
    resume_worker.worker_id,
    resume_worker.max_attempts,
    array(
      select c.id from shell.commands as c
      where c.status = 'running' and c.worker_id = resume_worker.worker_id
        and c.id <> all (resume_worker.holding)));
  return true;
end
$$;
comment on function shell.resume_worker(bigint, bigint[], int) is
  'Takes a worker''s place again over a new connection, with the commands that it knows it holds; '
  'false if it was given up for lost meanwhile.';

create function shell.stop_worker(worker_id bigint) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  update shell.workers as w set stopped_at = clock_timestamp()
  where w.id = stop_worker.worker_id and w.stopped_at is null
$$;
comment on function shell.stop_worker(bigint) is 'A worker''s goodbye.';

create function shell.claim_commands(worker_id bigint, want int, turn uuid)
returns setof shell.claimed_command
language plpgsql
as $$
declare
  nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  chosen bigint[] := '{}';
  chosen_sessions uuid[] := '{}';
  by_turns boolean;
  candidate_user uuid;
  candidate_session uuid;
  candidate_command bigint;
  candidate_status text;
  candidate_action jsonb;
  session_before uuid;
  start_session uuid;
  session_wrapped boolean;
  wrapped boolean := false;
  claimed_in_round boolean := false;
  standard shell.limits;
  maximum shell.limits;
begin
  -- As a rule all that waits fits. Then nobody comes before another, and one look at the queue does.
  with waiting as materialized (
    select c.id, c.environment_id, c.action
    from shell.commands as c
    where c.status = 'pending'
    order by c.user_id, c.environment_id, c.id
    limit claim_commands.want + 1
  )
  select
    (select count(*) > claim_commands.want or bool_or(w.action is not null) from waiting as w),
    array(
      select f.id
      from (select distinct on (w.environment_id) w.id, w.environment_id from waiting as w order by 2, 1) as f
      where not exists (
        select from shell.commands as c where c.status = 'running' and c.environment_id = f.environment_id))
  into by_turns, chosen;
  if by_turns then
    chosen := '{}';
  else
    want := 0;
    -- Another worker's claim in progress is passed over, as below.
    chosen := array(
      select c.id from shell.commands as c
      where c.id = any (chosen) and c.status = 'pending'
      for no key update skip locked);
  end if;

  turn := coalesce(turn, nobody);
  <<users>>
  while want > 0 loop
    -- The next user, in turn, with a command waiting; round and round until a round gives nothing.
    select c.user_id into candidate_user
    from shell.commands as c
    where c.status = 'pending' and c.user_id > turn
    order by c.user_id
    limit 1;
    if not found then
      exit users when wrapped and not claimed_in_round;
      exit users when claimed_in_round and not exists (
        select from shell.commands as c where c.status = 'pending' and c.id <> all (chosen));
      wrapped := true;
      claimed_in_round := false;
      turn := nobody;
      continue users;
    end if;
    turn := candidate_user;

    -- One of the user's sessions that is free, from a random one on, so that none is always last.
    start_session := gen_random_uuid();
    candidate_session := start_session;
    session_wrapped := false;
    <<sessions>>
    loop
      session_before := candidate_session;
      select c.environment_id, c.id into candidate_session, candidate_command
      from shell.commands as c
      where c.status = 'pending' and c.user_id = candidate_user and c.environment_id > candidate_session
      order by c.environment_id, c.id
      limit 1;
      if not found then
        exit sessions when session_wrapped;
        session_wrapped := true;
        candidate_session := nobody;
        continue sessions;
      end if;
      exit sessions when session_wrapped and candidate_session > start_session;

      continue sessions when candidate_session = any (chosen_sessions) or exists (
        select from shell.commands as c
        where c.status = 'running' and c.environment_id = candidate_session);

      -- Another worker's claim in progress is passed over; a finished one fails the status check. That is
      -- not asked in the query, which would look for the id in the whole queue.
      select c.status, c.action into candidate_status, candidate_action
      from shell.commands as c
      where c.id = candidate_command
      for no key update skip locked;
      continue sessions when not found or candidate_status <> 'pending';
      if candidate_action is not null then
        -- The database's own: done here, and the session looked at again.
        perform shell.perform_action(candidate_command);
        candidate_session := session_before;
        continue sessions;
      end if;

      chosen := chosen || candidate_command;
      chosen_sessions := chosen_sessions || candidate_session;
      claimed_in_round := true;
      want := want - 1;
      exit sessions;
    end loop;
  end loop;

  if chosen = '{}' then
    return;
  end if;
  standard := shell.default_limits();
  maximum := shell.maximum_limits();

  -- One statement for them all: a statement each costs three times as much.
  -- Here, and nowhere else, stands which limits hold. What nobody has limited, null, is passed over by least().
  return query
    with claimed as (
      update shell.commands as c
      set status = 'running', worker_id = claim_commands.worker_id, attempt = c.attempt + 1,
          claimed_at = clock_timestamp(),
          cwd_snapshot = e.cwd, env_snapshot = e.env, shell_state_snapshot = e.shell_state, tree_id = e.tree_id
      from shell.environments as e
      join shell.sandboxes as s on s.id = e.sandbox_id
      where c.id = any (chosen) and e.id = c.environment_id
      returning c.id, c.attempt, c.user_id, c.environment_id, c.command, e.cwd::text, e.env::jsonb, e.shell_state, s.programs::text[],
        least(maximum.wall_seconds, coalesce(s.wall_seconds, standard.wall_seconds), (c.limits).wall_seconds)::bigint,
        least(maximum.cpu_seconds, coalesce(s.cpu_seconds, standard.cpu_seconds), (c.limits).cpu_seconds)::bigint,
        least(maximum.memory_bytes, coalesce(s.memory_bytes, standard.memory_bytes), (c.limits).memory_bytes)::bigint,
        least(maximum.processes, coalesce(s.processes, standard.processes), (c.limits).processes)::bigint,
        least(maximum.open_files, coalesce(s.open_files, standard.open_files), (c.limits).open_files)::bigint,
        least(maximum.file_size_bytes, coalesce(s.file_size_bytes, standard.file_size_bytes), (c.limits).file_size_bytes)::bigint,
        least(maximum.disk_bytes, coalesce(s.disk_bytes, standard.disk_bytes), (c.limits).disk_bytes)::bigint,
        least(maximum.output_bytes, coalesce(s.output_bytes, standard.output_bytes), (c.limits).output_bytes)::bigint,
        e.tree_id
    )
    select claimed.* from claimed order by array_position(chosen, claimed.id);
end
$$;
comment on function shell.claim_commands(bigint, int, uuid) is
  'Takes up to so many commands for the worker, one a session, users in turn after the given one. '
  'The snapshots are written here: a command starts from what its predecessor left.';

create function shell.finish_commands(worker_id bigint, results json) returns setof bigint
language plpgsql
as $$
begin
  return query
  with result as (
    select r.* from json_populate_recordset(null::shell.command_result, finish_commands.results) as r
  ),
  finished as (
    update shell.commands as c
    set status = case when r.failure is null then 'done' else 'failed' end,
        failure = r.failure, failure_reason = r.failure_reason,
        exit_code = r.exit_code, signal = r.signal,
        output = r.output, stdout = r.stdout, stderr = r.stderr, raw_output = decode(r.raw_output, 'base64'),
        output_bytes = r.output_bytes, truncated = r.truncated,
        started_at = clock_timestamp() - make_interval(secs => r.age_us / 1e6),
        finished_at = clock_timestamp() - make_interval(secs => (r.age_us - r.duration_us) / 1e6),
        duration = make_interval(secs => r.duration_us / 1e6), cpu_time = make_interval(secs => r.cpu_us / 1e6),
        peak_memory_bytes = r.peak_memory_bytes,
        cwd_after = r.cwd_after, env_after = r.env_after, shell_state_after = r.shell_state_after,
        tree_after = nullif(r.tree_after, c.tree_id), not_kept = r.not_kept
    from result as r
    -- An array of ids, and no "=" for the status: or each batch reads all that runs, of every worker.
    where c.id = any (array(select i.command_id from result as i)) and c.id = r.command_id
      and (c.status, c.worker_id, c.attempt) is not distinct from ('running', finish_commands.worker_id, r.attempt)
    returning
      c.id, c.environment_id, c.cwd_after, c.env_after, c.shell_state_after, c.tree_after, c.finished_at, c.duration
  ),
  moved as (
    update shell.environments as e
    set cwd = coalesce(f.cwd_after, e.cwd), env = coalesce(f.env_after, e.env),
        shell_state = coalesce(f.shell_state_after, e.shell_state),
        tree_id = coalesce(f.tree_after, e.tree_id), updated_at = f.finished_at
    from finished as f
    where e.id = f.environment_id and (f.cwd_after is not null or f.tree_after is not null)
  ),
  shown as (
    delete from shell.output_chunks as o where o.command_id = any (array(select f.id from finished as f))
  )
  select f.id from finished as f;
end
$$;
comment on function shell.finish_commands(bigint, json) is
  'Writes an array of shell.command_result and the state each left, in one step; returns the ids that were '
  'still under the lease they name. The others belong to somebody else by now, and nothing is written for them.';

-- Who shows output as it comes listens to shell_output. A notification makes commits wait for one another, so none is
-- sent unless somebody watches: holds a lock, which goes with its connection.

create function shell.output_lock(name text) returns bigint
language sql immutable strict
return hashtextextended('pg_shell output ' || name, 0);
comment on function shell.output_lock(text) is
  'The advisory locks about shell_output: "watched", which every watcher shares, and "watching", held to become one.';

create function shell.watch_output() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Until commit. Waits for those that found nobody watching and have not committed: after this they can be read.
  perform pg_advisory_xact_lock(shell.output_lock('watching'));
  perform pg_advisory_lock_shared(shell.output_lock('watched'));
end
$$;
comment on function shell.watch_output() is
  'From its commit on, new output and ends of commands are told on the channel shell_output, as long as this '
  'connection lives: ids with commas, or nothing, which means to look at all. Listen first, look after it.';

create function shell.unwatch_output() returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_unlock_shared(shell.output_lock('watched')) $$;
comment on function shell.unwatch_output() is 'Takes back one shell.watch_output() of this connection.';

create function shell.tell_output(command_ids bigint[]) returns void
language plpgsql
as $$
declare
  ids text;
begin
  if command_ids = '{}' then
    return;
  end if;
  if pg_try_advisory_xact_lock_shared(shell.output_lock('watching'))
    and pg_try_advisory_lock(shell.output_lock('watched'))
  then
    perform pg_advisory_unlock(shell.output_lock('watched'));
    return;
  end if;
  ids := array_to_string(command_ids, ',');
  perform pg_notify('shell_output', case when octet_length(ids) <= 7900 then ids else '' end);
end
$$;
comment on function shell.tell_output(bigint[]) is
  'Tells those who watch that these commands have new output or have ended, in one notification.';

create function shell.work(worker_id bigint, results json, want int, turn uuid)
returns setof shell.claimed_command
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- For all that it calls. Planned once, by index: planning the claim again for each batch takes longer than the claim.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  if results is null then
    -- A lost claim is a command that waits again: only what is finished must outlive a crash.
    set local synchronous_commit = off;
  else
    perform shell.tell_output(array(select shell.finish_commands(work.worker_id, work.results)));
  end if;
  -- A claim that finds nothing takes some 40 µs of each write-back; to look takes 5.
  if work.want > 0 and exists (select from shell.commands as c where c.status = 'pending') then
    return query select * from shell.claim_commands(work.worker_id, work.want, work.turn);
  end if;
end
$$;
comment on function shell.work(bigint, json, int, uuid) is
  'Finishes and claims in one commit: results may be null, want may be 0.';

create function shell.append_output(worker_id bigint, chunks json) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  told bigint[];
begin
  with shown as (
    insert into shell.output_chunks (command_id, seq, stream, data)
    select k.command_id, k.seq, k.stream, k.data
    from json_to_recordset(append_output.chunks) as k (command_id bigint, attempt int, seq int, stream text, data text)
    join shell.commands as c
      on c.id = k.command_id and c.status = 'running'
      and c.worker_id = append_output.worker_id and c.attempt = k.attempt
    on conflict do nothing
    returning command_id
  )
  select array_agg(distinct s.command_id) into told from shown as s;
  perform shell.tell_output(coalesce(told, '{}'));
end
$$;
comment on function shell.append_output(bigint, json) is 'Shows what running commands have printed since the last call.';

create function shell.rescue_commands(grace interval, lease interval, max_attempts int) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  worker shell.workers;
  rescued bigint := 0;
  moved bigint;
begin
  for worker in
    select w.* from shell.workers as w where w.stopped_at is null order by w.id for no key update skip locked
  loop
    if not exists (
      -- This session's own lock can be taken again, so it is looked for before it is tried.
      select from pg_locks as l
      where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and l.database = (select d.oid from pg_database as d where d.datname = current_database())
        and ((l.classid::bigint << 32) | l.objid::bigint) = shell.worker_lock(worker.id)
    ) then
      if worker.lost_since is null then
        update shell.workers as w set lost_since = clock_timestamp() where w.id = worker.id;
        worker.lost_since := clock_timestamp();
      end if;
    elsif worker.lost_since is not null then
      update shell.workers as w set lost_since = null where w.id = worker.id;
      worker.lost_since := null;
    end if;

    if worker.lost_since <= clock_timestamp() - grace or worker.heartbeat_at <= clock_timestamp() - lease then
      update shell.workers as w set stopped_at = clock_timestamp() where w.id = worker.id;
      moved := shell.release_commands(worker.id, max_attempts);
      rescued := rescued + moved;
    end if;
  end loop;
  if rescued > 0 then
    notify shell_commands;
  end if;
  return rescued;
end
$$;
comment on function shell.rescue_commands(interval, interval, int) is
  'Gives up workers whose connection is gone for the grace or whose heartbeat is older than the lease, '
  'and releases what they held.';

create function shell.release_commands(worker_id bigint, max_attempts int, only_ids bigint[] default null)
returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  with held as (
    select c.id,
      case
        when c.cancel_requested_at is not null then 'cancelled'
        when c.attempt >= release_commands.max_attempts then 'worker_lost'
      end as failure
    from shell.commands as c
    where c.status = 'running' and c.worker_id = release_commands.worker_id
      and (only_ids is null or c.id = any (only_ids))
    for no key update
  ),
  released as (
    update shell.commands as c
    set status = case when h.failure is null then 'pending' else 'failed' end,
        failure = h.failure,
        failure_reason = case h.failure
          when 'cancelled' then 'The command was cancelled, and its worker ended before it could say so.'
          when 'worker_lost' then format('The worker was lost %s times while the command ran; it was not tried again.', c.attempt)
        end,
        finished_at = case when h.failure is not null then clock_timestamp() end,
        claimed_at = null
    from held as h
    where c.id = h.id
    returning c.id
  ),
  shown as (
    delete from shell.output_chunks as o using released as r where o.command_id = r.id
  )
  select count(*) from released as r cross join lateral pg_notify('shell_output', r.id::text)
$$;
comment on function shell.release_commands(bigint, int, bigint[]) is
  'Puts what a worker holds back into the queue; what was tried max_attempts times fails as worker_lost.';

create function shell.heartbeat(worker_id bigint, grace interval, lease interval, max_attempts int)
returns table (
  alive boolean, rescued bigint, waiting boolean, cancelled bigint[], lost boolean, upkeep_left bigint,
  objects_left boolean
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  set local synchronous_commit = off;
  update shell.workers as w set heartbeat_at = clock_timestamp()
  where w.id = heartbeat.worker_id and w.stopped_at is null;
  alive := found;
  rescued := shell.rescue_commands(heartbeat.grace, heartbeat.lease, heartbeat.max_attempts);
  waiting := exists (select from shell.commands as c where c.status = 'pending');
  -- A notification lost with a connection is made good here.
  cancelled := array(
    select c.id from shell.commands as c
    where c.status = 'running' and c.worker_id = heartbeat.worker_id and c.cancel_requested_at is not null);
  lost := exists (select from shell.workers as w where w.stopped_at is null and w.lost_since is not null);
  begin
    upkeep_left := shell.upkeep();
  exception when others then
    -- The worker is alive all the same.
    raise warning 'upkeep failed: % (%)', sqlerrm, sqlstate;
    upkeep_left := 0;
  end;
  objects_left := exists (select from shell.unnamed_objects as u where u.since < now() - interval '1 hour');
  return next;
end
$$;
comment on function shell.heartbeat(bigint, interval, interval, int) is
  'The slow poll, all in one transaction: says alive, rescues what lost workers held, tells what waits and what to cancel, '
  'and does a little upkeep; where upkeep_left is not 0, shell.upkeep() has more to do, and where objects_left, '
  'shell.give_up_objects().';
