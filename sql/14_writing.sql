-- What a person writes: a file, or a snapshot brought back. Each is a command of its own, with its place in the order
-- of its session, but nothing that a shell could run: the database does it in its turn, at once where none waits.

create table shell.snapshots (
  id bigint generated always as identity primary key,
  environment_id uuid not null references shell.environments (id),
  user_id uuid not null references shell.users (id),
  name text not null,
  description text,
  tree_id bigint references shell.trees (id),
  cwd shell.absolute_path not null,
  env shell.variables not null,
  shell_state text not null,
  after_command_id bigint,
  created_at timestamptz not null default clock_timestamp(),

  unique (environment_id, name),
  constraint snapshot_name_is_printable check (name ~ '^[^[:cntrl:]]{1,64}$'),
  constraint description_fits check (octet_length(description) <= 65536)
);
comment on table shell.snapshots is 'States of sessions by name: files, directory, variables and shell state. Retention keeps them.';
comment on column shell.snapshots.id is 'For rows of other tables; people use the name.';
comment on column shell.snapshots.environment_id is 'The session.';
comment on column shell.snapshots.user_id is 'Whose it is.';
comment on column shell.snapshots.name is 'One name a session.';
comment on column shell.snapshots.description is 'For people.';
comment on column shell.snapshots.tree_id is 'The files; null is an empty home folder.';
comment on column shell.snapshots.cwd is 'Working directory.';
comment on column shell.snapshots.env is 'Exported variables.';
comment on column shell.snapshots.shell_state is 'Shell state.';
comment on column shell.snapshots.after_command_id is
  'The last command that had ended; null where none had. No foreign key: retention may remove the command.';
comment on column shell.snapshots.created_at is 'When it was made.';
create index snapshots_with_tree on shell.snapshots (tree_id) where tree_id is not null;
create index snapshots_of_user on shell.snapshots (user_id);
select pg_catalog.pg_extension_config_dump('shell.snapshots', '');
select pg_catalog.pg_extension_config_dump('shell.snapshots_id_seq', '');

create function shell.store_content(content bytea) returns bytea
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  piece constant int := 262144;
  pieces bytea[];
  hash constant bytea := sha256(store_content.content);
begin
  pieces := array(
    select substring(store_content.content from n * piece + 1 for piece)
    from generate_series(0, (octet_length(store_content.content) - 1) / piece) as n
    where octet_length(store_content.content) > 0);
  perform shell.add_chunks(array(select sha256(p) from unnest(pieces) as p), pieces, null);
  perform shell.add_contents(json_build_array(json_build_object(
    'hash', encode(hash, 'hex'), 'size', octet_length(store_content.content),
    'chunks', array(select encode(sha256(p), 'hex') from unnest(pieces) with ordinality as u (p, n) order by n))));
  return hash;
end
$$;
comment on function shell.store_content(bytea) is 'Stores what a file holds; returns its hash.';

create function shell.written_entries(
  tree_id bigint, path bytea, content bytea, size bigint, mode int, out entries json, out wrong text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  now_ns constant bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000;
  before shell.tree_entry;
begin
  select format('%s is a %s, not a folder.', shell.path_text(e.path), e.kind) into wrong
  from shell.find_entries(written_entries.tree_id, array(select a from shell.ancestors(written_entries.path) as a)) as e
  where e.kind <> 'folder'
  order by e.path
  limit 1;
  if wrong is not null then
    return;
  end if;
  select e.* into before from shell.find_entries(written_entries.tree_id, array[written_entries.path]) as e;
  if before.kind <> 'file' then
    wrong := format('%s is a %s, not a file.', shell.path_text(before.path), before.kind);
    return;
  end if;
  select json_agg(e.entry) into entries
  from (
    select json_build_object(
      'path', encode(a.path, 'base64'), 'kind', 'folder', 'mode', 493, 'mtime_ns', now_ns) as entry
    from shell.ancestors(written_entries.path) as a (path)
    where a.path not in (
      select f.path
      from shell.find_entries(
        written_entries.tree_id, array(select b from shell.ancestors(written_entries.path) as b)) as f)
    union all
    select json_build_object(
      'path', encode(written_entries.path, 'base64'), 'kind', 'file', 'mtime_ns', now_ns,
      'mode', coalesce(written_entries.mode, before.mode, 420), 'size', written_entries.size,
      'content', encode(written_entries.content, 'hex'))
  ) as e;
end
$$;
comment on function shell.written_entries(bigint, bytea, bytea, bigint, int) is
  'What writing a file changes in a tree, its folders among it; or what stands in its way.';

create function shell.end_action(
  ended shell.commands, session shell.environments, began timestamptz, why text
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update shell.commands as c
  set status = case when why is null then 'done' else 'failed' end,
      failure = case when why is not null then ended.failure end, failure_reason = why,
      exit_code = case when why is null then 0 end, output = '', stdout = '', stderr = '', output_bytes = 0,
      attempt = c.attempt + 1, claimed_at = began, started_at = began, finished_at = clock_timestamp(),
      duration = clock_timestamp() - began,
      cwd_snapshot = session.cwd, env_snapshot = session.env, shell_state_snapshot = session.shell_state,
      tree_id = session.tree_id,
      tree_after = case when why is null then nullif(ended.tree_after, session.tree_id) end,
      cwd_after = case when why is null then ended.cwd_after end,
      env_after = case when why is null then ended.env_after end,
      shell_state_after = case when why is null then ended.shell_state_after end
  where c.id = ended.id;
  update shell.environments as e
  set tree_id = coalesce(ended.tree_after, e.tree_id), cwd = coalesce(ended.cwd_after, e.cwd),
      env = coalesce(ended.env_after, e.env),
      shell_state = coalesce(ended.shell_state_after, e.shell_state), updated_at = clock_timestamp()
  where e.id = session.id and why is null;
end
$$;
comment on function shell.end_action(shell.commands, shell.environments, timestamptz, text) is
  'Writes how an action ended, and the state that it left, if it did not fail.';

create function shell.perform_action(command_id bigint) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  command shell.commands;
  session shell.environments;
  began constant timestamptz := clock_timestamp();
  entries json;
  why text;
begin
  select c.* into command from shell.commands as c where c.id = perform_action.command_id;
  select e.* into session from shell.environments as e where e.id = command.environment_id for no key update;
  begin
    if command.action ->> 'do' = 'write_file' then
      select w.entries, w.wrong into entries, why
      from shell.written_entries(
        session.tree_id, decode(command.action ->> 'path', 'hex'), decode(command.action ->> 'sha256', 'hex'),
        (command.action ->> 'size')::bigint, (command.action ->> 'mode')::int) as w;
      command.failure := 'refused';
      if why is null then
        select m.tree_id, m.refusal into command.tree_after, why
        from shell.make_tree(command.user_id, session.id, session.tree_id, command.id, entries) as m;
        command.failure := 'limit';
      end if;
    else
      -- restore_snapshot. An empty home folder again is a tree from which all is gone.
      command.tree_after := coalesce(
        (command.action ->> 'tree_id')::bigint,
        shell.make_empty_tree(command.user_id, session.tree_id, command.id));
      command.cwd_after := command.action ->> 'cwd';
      command.env_after := command.action -> 'env';
      command.shell_state_after := command.action ->> 'shell_state';
    end if;
    if why is null then
      perform shell.end_action(command, session, began, null);
    end if;
  exception
    -- It is tried again, with the claim.
    when deadlock_detected or serialization_failure or lock_not_available then
      raise;
    -- A claim that failed for one command would fail for all.
    when others then
      why := sqlerrm || '.';
      command.failure := 'refused';
  end;
  if why is not null then
    perform shell.end_action(command, session, began, why);
  end if;
  perform shell.tell_output(array[command.id]);
  return why;
end
$$;
comment on function shell.perform_action(bigint) is
  'Does what a waiting command says that the database does; it is finished then. Returns why it failed, if it did.';

create function shell.make_empty_tree(user_id uuid, parent_id bigint, command_id bigint) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select m.tree_id
  from shell.make_tree(
    make_empty_tree.user_id,
    (select c.environment_id from shell.commands as c where c.id = make_empty_tree.command_id),
    make_empty_tree.parent_id, make_empty_tree.command_id,
    (select coalesce(json_agg(json_build_object('path', encode(e.path, 'base64'), 'kind', 'gone')), '[]')
     from shell.tree_entries(make_empty_tree.parent_id) as e
     where not exists (select from shell.ancestors(e.path)))) as m
$$;
comment on function shell.make_empty_tree(uuid, bigint, bigint) is 'A tree in which all is gone that was in its parent.';

create function shell.submit_action(environment_id uuid, command text, action jsonb) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  command_id bigint;
  why text;
begin
  perform pg_advisory_xact_lock(hashtextextended('pg_shell submit ' || submit_action.environment_id::text, 0));
  insert into shell.commands
    (user_id, environment_id, command, action, cwd_snapshot, env_snapshot, shell_state_snapshot)
  select e.user_id, e.id, submit_action.command, submit_action.action, e.cwd, e.env, e.shell_state
  from shell.environments as e
  where e.id = submit_action.environment_id
  returning id into command_id;

  if exists (
    select from shell.commands as c
    where c.environment_id = submit_action.environment_id and c.status in ('pending', 'running') and c.id < command_id
  ) then
    notify shell_commands;
    return command_id;
  end if;
  why := shell.perform_action(command_id);
  if why is not null then
    raise exception using
      errcode = 'PS034',
      message = rtrim(why, '.'),
      hint = 'Nothing was changed. Remove what stands in the way, or ask an administrator for more storage.';
  end if;
  return command_id;
end
$$;
comment on function shell.submit_action(uuid, text, jsonb) is
  'Does something to a session''s files as a command of its own, at once, or after the commands that wait. Returns its '
  'id. Raises PS034 where it is done at once and fails.';

create function shell.write_file(environment_id uuid, path text, content bytea, mode int default null) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  written constant bytea := shell.home_path(write_file.path);
  quota constant shell.storage := shell.storage_quota(write_file.environment_id);
  waiting shell.storage;
  hash bytea;
begin
  perform shell.tree_at(write_file.environment_id, null);
  if write_file.content is null or write_file.mode not between 0 and 1023 then
    raise exception using
      errcode = 'PS040',
      message = case when write_file.content is null then 'there is no content to write'
        else format('the mode %s is no set of permissions', write_file.mode) end,
      hint = 'Pass the bytes, '''' for none, and a mode of 0 to 1023 (octal 1777), or none.';
  end if;
  -- What waits for its turn is stored already: without this a queue would hold what a quota refuses.
  select
    sum((c.action ->> 'size')::bigint) filter (where c.environment_id = e.id),
    sum((c.action ->> 'size')::bigint) + coalesce((select u.bytes from shell.user_storage as u where u.user_id = e.user_id), 0)
  into waiting
  from shell.environments as e
  join shell.commands as c on c.user_id = e.user_id and c.status = 'pending' and c.action ->> 'do' = 'write_file'
  where e.id = write_file.environment_id
  group by e.id;
  if exists (
    select from shell.commands as c
    where c.environment_id = write_file.environment_id and c.status in ('pending', 'running')
  ) and (
    coalesce(waiting.session_bytes, 0) + octet_length(write_file.content) > quota.session_bytes
    or coalesce(waiting.user_bytes, 0) + octet_length(write_file.content) > quota.user_bytes
  )
  then
    raise exception using
      errcode = 'PS034',
      message = 'with the files that wait to be written this is more than the quota allows',
      hint = 'Nothing was changed. Write it when these are written, or cancel them with shell.cancel_command().';
  end if;
  hash := shell.store_content(write_file.content);
  return shell.submit_action(
    write_file.environment_id,
    format('# write_file %s: %s bytes, sha256 %s',
      regexp_replace(shell.path_text(written), '[[:cntrl:]]', '?', 'g'), octet_length(write_file.content), encode(hash, 'hex')),
    jsonb_strip_nulls(jsonb_build_object(
      'do', 'write_file', 'path', encode(written, 'hex'), 'sha256', encode(hash, 'hex'),
      'size', octet_length(write_file.content), 'mode', write_file.mode)));
end
$$;
comment on function shell.write_file(uuid, text, bytea, int) is
  'Writes a file of a session, and the folders that it needs, as a command of its own; returns its id. With commands '
  'waiting, it waits for its turn. The mode is the file''s own, or 0644, unless given. '
  'Raises PS002, PS037 for no path, PS040 for no content, PS034 where a folder or a quota is in the way.';

create function shell.create_snapshot(environment_id uuid, name text, description text default null) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot bigint;
begin
  perform shell.tree_at(create_snapshot.environment_id, null);
  insert into shell.snapshots
    (environment_id, user_id, name, description, tree_id, cwd, env, shell_state, after_command_id)
  select e.id, e.user_id, create_snapshot.name, create_snapshot.description, e.tree_id, e.cwd, e.env, e.shell_state,
    (select max(c.id) from shell.commands as c where c.environment_id = e.id and c.hash is not null and c.attempt > 0)
  from shell.environments as e
  where e.id = create_snapshot.environment_id
  returning id into snapshot;
  return snapshot;
exception when unique_violation then
  raise exception using
    errcode = 'PS036',
    message = format('the session has a snapshot %s already', quote_literal(create_snapshot.name)),
    hint = 'Choose another name, or delete that one with shell.delete_snapshot().';
end
$$;
comment on function shell.create_snapshot(uuid, text, text) is
  'Keeps the state of a session, as its last finished command left it, by a name; returns its id. '
  'Raises PS002 for an unknown session, PS036 for a name that is taken.';

create function shell.require_snapshot(environment_id uuid, name text) returns shell.snapshots
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot shell.snapshots;
begin
  perform shell.tree_at(require_snapshot.environment_id, null);
  select s.* into snapshot
  from shell.snapshots as s
  where s.environment_id = require_snapshot.environment_id and s.name = require_snapshot.name;
  if not found then
    raise exception using
      errcode = 'PS036',
      message = format('the session has no snapshot %s', coalesce(quote_literal(require_snapshot.name), 'null')),
      hint = 'shell.snapshots lists them; shell.create_snapshot() makes one.';
  end if;
  return snapshot;
end
$$;
comment on function shell.require_snapshot(uuid, text) is 'A snapshot''s row. Raises PS002, and PS036 where there is none.';

create function shell.restore_snapshot(environment_id uuid, name text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot constant shell.snapshots := shell.require_snapshot(restore_snapshot.environment_id, restore_snapshot.name);
begin
  return shell.submit_action(
    restore_snapshot.environment_id, format('# restore_snapshot %s', snapshot.name),
    jsonb_build_object(
      'do', 'restore_snapshot', 'name', snapshot.name, 'tree_id', snapshot.tree_id, 'cwd', snapshot.cwd,
      'env', snapshot.env, 'shell_state', snapshot.shell_state));
end
$$;
comment on function shell.restore_snapshot(uuid, text) is
  'Brings a session back to a snapshot of it, as a command of its own; returns its id. What came between stays in its '
  'history. With commands waiting, it waits for its turn. Raises PS002, and PS036 where there is no such snapshot.';

create function shell.delete_snapshot(environment_id uuid, name text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  snapshot constant shell.snapshots := shell.require_snapshot(delete_snapshot.environment_id, delete_snapshot.name);
  tree bigint := snapshot.tree_id;
  parent bigint;
begin
  delete from shell.snapshots as s where s.id = snapshot.id;
  -- Upkeep has looked at its trees long ago. Up to the first that somebody else has.
  while tree is not null loop
    select t.parent_id into parent from shell.trees as t where t.id = tree;
    perform shell.collect_trees(array[tree]);
    exit when exists (select from shell.trees as t where t.id = tree);
    tree := parent;
  end loop;
end
$$;
comment on function shell.delete_snapshot(uuid, text) is
  'Forgets a snapshot; what only it had may be collected. Raises PS002, and PS036 where there is none.';
