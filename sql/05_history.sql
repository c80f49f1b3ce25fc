-- History is history: what is finished is never written again, by anybody. Each finished command carries a hash of the
-- one before it, of all that its row says, and of the files that it left; so what somebody changes past these triggers
-- is found.

create function shell.refuse_to_change_history() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PS009',
    message = format('command %s is finished and cannot be changed', old.id),
    hint = 'Submit a new command, or fork the session from this one.';
end
$$;

create trigger finished_commands_never_change
before update on shell.commands
for each row
when (old.finished_at is not null)
execute function shell.refuse_to_change_history();

-- No foreign keys: what it tells of is gone.
create table shell.removed_commands (
  environment_id uuid not null,
  command_id bigint not null,
  user_id uuid not null,
  ran boolean not null,
  hash shell.sha256,
  finished_at timestamptz not null,
  removed_at timestamptz not null default clock_timestamp(),
  reason text not null,

  primary key (environment_id, command_id)
);
comment on table shell.removed_commands is 'What retention removed, and all that is kept of it.';
comment on column shell.removed_commands.environment_id is 'The session that it was of.';
comment on column shell.removed_commands.command_id is 'The id that it had.';
comment on column shell.removed_commands.user_id is 'Whose it was.';
comment on column shell.removed_commands.ran is 'Whether a worker ever had it; the hashes of the others stand alone.';
comment on column shell.removed_commands.hash is 'The hash that it had: the next command is chained to it.';
comment on column shell.removed_commands.finished_at is 'When it had ended.';
comment on column shell.removed_commands.removed_at is 'When it was removed.';
comment on column shell.removed_commands.reason is 'By which policy.';
create index removed_commands_by_time on shell.removed_commands (removed_at);
select pg_catalog.pg_extension_config_dump('shell.removed_commands', '');

-- A command that no worker ever had ended out of turn: others before it may still have run. Its hash stands alone, and
-- is chained by the next command that runs.
create function shell.hash_before(environment_id uuid, command_id bigint) returns bytea
language plpgsql stable
as $$
declare
  before record;
  since bigint;
begin
  -- Not "=": see shell.latest_output.
  select c.id, c.attempt > 0 as ran, c.hash into before
  from shell.commands as c
  where c.environment_id between hash_before.environment_id and hash_before.environment_id
    and c.id < hash_before.command_id
  order by c.environment_id desc, c.id desc
  limit 1;
  if before.ran then
    return coalesce(before.hash, '');
  end if;

  -- Seldom: the first that runs, or those before it never did, or were removed.
  select max(e.id) into since
  from (
    (select c.id from shell.commands as c
     where c.environment_id = hash_before.environment_id and c.id < hash_before.command_id and c.attempt > 0
     order by c.id desc limit 1)
    union all
    select max(r.command_id) from shell.removed_commands as r
    where r.environment_id = hash_before.environment_id and r.command_id < hash_before.command_id and r.ran
  ) as e (id);
  return (
    select coalesce(string_agg(coalesce(e.hash, ''), '' order by e.id), '')
    from (
      select c.id, c.hash from shell.commands as c
      where c.environment_id = hash_before.environment_id and c.id < hash_before.command_id and c.id >= coalesce(since, 0)
      union all
      select r.command_id, r.hash from shell.removed_commands as r
      where r.environment_id = hash_before.environment_id and r.command_id < hash_before.command_id
        and r.command_id >= coalesce(since, 0)
      union all
      select 0, e.origin_hash from shell.environments as e
      where e.id = hash_before.environment_id and since is null
    ) as e
  );
end
$$;
comment on function shell.hash_before(uuid, bigint) is
  'What a command is chained to: the hash of the last that ran before it in its session, or of the command that the '
  'session was forked from, and those of the ones between that never ran.';

create function shell.text_hash(value text) returns bytea
language sql stable parallel safe
return coalesce(sha256(convert_to(value, 'UTF8')), '\x00');
comment on function shell.text_hash(text) is 'SHA-256 of a text as UTF-8; for null, something else.';

create function shell.command_hash(command shell.commands, before bytea, tree_hash bytea) returns bytea
language sql stable parallel safe
return sha256(
  sha256(before)
  || coalesce(tree_hash, '\x00')
  || shell.text_hash(json_build_array(
    (command).id, (command).user_id, (command).environment_id, (command).status, (command).exit_code,
    (command).failure, (command).failure_reason, (command).signal, (command).output_bytes, (command).truncated,
    extract(epoch from (command).submitted_at), extract(epoch from (command).claimed_at),
    extract(epoch from (command).started_at), extract(epoch from (command).finished_at),
    extract(epoch from (command).duration), extract(epoch from (command).cpu_time), (command).peak_memory_bytes,
    (command).worker_id, (command).attempt, extract(epoch from (command).cancel_requested_at), (command).replay_of,
    (command).limits::text, (command).cwd_snapshot, (command).cwd_after, (command).tree_id, (command).tree_after,
    (command).not_kept, (command).action)::text)
  || shell.text_hash((command).command)
  || shell.text_hash((command).output) || shell.text_hash((command).stdout) || shell.text_hash((command).stderr)
  || coalesce(sha256((command).raw_output), '\x00')
  || shell.text_hash((command).env_snapshot::text) || shell.text_hash((command).env_after::text)
  || shell.text_hash((command).shell_state_snapshot) || shell.text_hash((command).shell_state_after)
);
comment on function shell.command_hash(shell.commands, bytea, bytea) is
  'The hash of a finished command, from all of its row, from what it is chained to, and from its files'' hash.';

create function shell.chain_command() returns trigger
language plpgsql
as $$
declare
  left_tree constant bigint := coalesce(new.tree_after, new.tree_id);
  tree_hash bytea;
begin
  if left_tree is not null then
    select t.hash into tree_hash from shell.trees as t
    where t.id = left_tree and t.user_id = new.user_id
      -- A snapshot's tree, which comes back by an action, was another command's.
      and (t.command_id = new.id or new.tree_after is null or new.action is not null);
    if not found then
      raise exception using
        errcode = 'PS038',
        message = format('command %s cannot leave tree %s', new.id, left_tree),
        hint = 'A command leaves a tree that shell.add_tree() made for it.';
    end if;
  end if;
  new.hash := shell.command_hash(
    new, case when new.attempt > 0 then shell.hash_before(new.environment_id, new.id) else '' end, tree_hash);
  return new;
end
$$;

create trigger finishing_commands_are_chained
before update on shell.commands
for each row
when (old.finished_at is null and new.finished_at is not null)
execute function shell.chain_command();
