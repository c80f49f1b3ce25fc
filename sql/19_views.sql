-- Seed 000, sections 6 and 8: audit, metrics, monitoring, replay.
-- What shows rows of users shows each reader those that the policies of the tables let it see.

create view shell.command_metrics with (security_invoker) as
select
  c.id, c.user_id, c.environment_id, c.status, c.failure, c.submitted_at,
  c.started_at - c.submitted_at as queue_time,
  c.duration, c.cpu_time, c.peak_memory_bytes, c.output_bytes, c.truncated, c.attempt
from shell.commands as c;
comment on view shell.command_metrics is 'Timing, output size and memory, a row a command.';

create view shell.user_usage with (security_invoker) as
select
  u.id as user_id, u.username,
  count(c.id) as commands,
  count(c.id) filter (where c.status = 'failed') as failed,
  coalesce(sum(c.duration), '0') as duration,
  coalesce(sum(c.cpu_time), '0') as cpu_time,
  coalesce(sum(c.output_bytes), 0)::bigint as output_bytes,
  max(c.submitted_at) as last_submitted_at
from shell.users as u
left join shell.commands as c on c.user_id = u.id
group by u.id;
comment on view shell.user_usage is 'What each user has used.';

create view shell.queue as
select
  count(*) as pending,
  count(distinct c.environment_id) as sessions,
  count(distinct c.user_id) as users,
  min(c.submitted_at) as oldest_submitted_at,
  clock_timestamp() - min(c.submitted_at) as oldest_age
from shell.commands as c
where c.status = 'pending';
comment on view shell.queue is 'How much waits, and for how long the oldest has.';

create view shell.worker_status as
select
  w.id, w.name, w.os_user, w.version, w.concurrency, w.started_at, w.heartbeat_at,
  clock_timestamp() - w.heartbeat_at as silent_for,
  case when w.stopped_at is not null then 'stopped' when w.lost_since is not null then 'lost' else 'alive' end as state,
  count(c.id) as running,
  array_agg(c.id order by c.id) filter (where c.id is not null) as command_ids
from shell.workers as w
left join shell.commands as c on c.worker_id = w.id and c.status = 'running'
group by w.id;
comment on view shell.worker_status is 'The workers and what they hold.';

create view shell.replay_differences with (security_invoker) as
select
  r.environment_id as replay_id,
  o.environment_id as original_id,
  o.id as original_command_id,
  r.id as replay_command_id,
  o.command,
  r.status as replay_status,
  o.exit_code as original_exit_code,
  r.exit_code as replay_exit_code,
  o.output as original_output,
  r.output as replay_output,
  r.status in ('done', 'failed') and (
    o.exit_code is distinct from r.exit_code or o.output is distinct from r.output
    or coalesce(ot.shape, 0) <> coalesce(rt.shape, 0)
  ) as differs,
  r.status in ('done', 'failed') and coalesce(ot.shape, 0) <> coalesce(rt.shape, 0) as files_differ
from shell.commands as r
join shell.commands as o on o.id = r.replay_of
left join shell.trees as ot on ot.id = coalesce(o.tree_after, o.tree_id)
left join shell.trees as rt on rt.id = coalesce(r.tree_after, r.tree_id);
comment on view shell.replay_differences is
  'Each replayed command beside its original; differs is true where exit code, output or the files that were left are '
  'others, files_differ where these are. Times of files do not count.';

create function shell.replay_report(environment_id uuid)
returns table (original_command_id bigint, replay_command_id bigint, command text, differences text[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  first_one record;
begin
  select d.*, shell.tree_left(o) as original_tree, shell.tree_left(r) as replay_tree into first_one
  from shell.replay_differences as d
  join shell.commands as o on o.id = d.original_command_id
  join shell.commands as r on r.id = d.replay_command_id
  where d.replay_id = replay_report.environment_id and d.differs
  order by d.replay_command_id
  limit 1;
  if not found then
    return;
  end if;
  original_command_id := first_one.original_command_id;
  replay_command_id := first_one.replay_command_id;
  command := first_one.command;
  differences := array(
    select format('exit code: %s, then %s',
      coalesce(first_one.original_exit_code::text, 'none'), coalesce(first_one.replay_exit_code::text, 'none'))
    where first_one.original_exit_code is distinct from first_one.replay_exit_code
    union all
    select 'output: ' || coalesce(nullif(shell.unified_diff(
      convert_to(first_one.original_output, 'UTF8'), convert_to(first_one.replay_output, 'UTF8'), 'original', 'replay'), ''),
      'another')
    where first_one.original_output is distinct from first_one.replay_output
    union all
    (select format('file: %s %s', d.change, d.path)
     from shell.tree_differences(first_one.original_tree, first_one.replay_tree, false) as d
     where first_one.files_differ
     order by d.path
     limit 100));
  return next;
end
$$;
comment on function shell.replay_report(uuid) is
  'Which command of a replay was the first to do something else than its original, and what: exit code, output, and up '
  'to 100 files. No row where none did.';
