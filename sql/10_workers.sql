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
  -- A claim that was under way when its worker was given up, or said goodbye: nobody else would ever look at it.
  for worker in
    select w.* from shell.workers as w
    where w.stopped_at is not null
      and w.id = any (array(select c.worker_id from shell.commands as c where c.status = 'running'))
    order by w.id
  loop
    rescued := rescued + shell.release_commands(worker.id, max_attempts);
  end loop;
  if rescued > 0 then
    notify shell_commands;
  end if;
  return rescued;
end
$$;
comment on function shell.rescue_commands(interval, interval, int) is
  'Gives up workers whose connection is gone for the grace or whose heartbeat is older than the lease, '
  'and releases what they held, and what those hold that have stopped.';

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
