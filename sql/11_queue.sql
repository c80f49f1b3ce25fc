-- The queue as a worker works through it: claims, write-backs, live output. Its role may call shell.work and
-- shell.append_output.

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
      -- Asked once more: what ran when the candidate was found, before it, may have been put back into the queue since.
      continue sessions when exists (
        select from shell.commands as c
        where c.status = 'running' and c.environment_id = candidate_session
      ) or exists (
        select from shell.commands as c
        where c.status = 'pending' and c.user_id = candidate_user and c.environment_id = candidate_session
          and c.id < candidate_command);
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
  -- A claim that finds nothing takes some 40 µs of each write-back; to look takes 5. Who was given up claims nothing.
  if work.want > 0
    and exists (select from shell.commands as c where c.status = 'pending')
    and exists (select from shell.workers as w where w.id = work.worker_id and w.stopped_at is null)
  then
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
