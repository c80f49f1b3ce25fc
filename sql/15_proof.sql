-- Whether history is what it was. Hashes prove nothing against who writes them all anew; but the last one of a session,
-- kept elsewhere, proves all before it.

create function shell.plain_entries(tree_id bigint) returns setof shell.tree_entry
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with recursive up as (
      select 1 as number, t.id, t.parent_id from shell.trees as t where t.id = plain_entries.tree_id
      union all
      select up.number + 1, t.id, t.parent_id from up join shell.trees as t on t.id = up.parent_id
    ),
    changed as (
      select up.number, e.*, up.id
      from up
      join shell.fs_entries as e on e.tree_id = up.id
    ),
    newest as (
      select distinct on (c.path) c.* from changed as c order by c.path, c.number
    ),
    replacing as (
      select c.path, min(c.number) as number from changed as c where c.replaces group by c.path
    ),
    hidden as (
      select h.path
      from (select where exists (select from replacing)) as any_replaces
      cross join lateral shell.hidden_paths(
        (select array_agg(n.path::bytea) from newest as n), (select array_agg(n.number::bigint) from newest as n),
        (select array_agg(r.path::bytea) from replacing as r), (select array_agg(r.number::bigint) from replacing as r)
      ) as h (path)
    )
    select n.path::bytea, n.kind, n.mode, n.mtime_ns, n.size, coalesce(n.content, n.removed_content)::bytea, n.target,
      (n.id << 24) | n.link_group, case when not n.inherited then n.id end
    from newest as n
    where n.kind <> 'gone' and n.path not in (select h.path from hidden as h)
    order by n.path;
end
$$;
comment on function shell.plain_entries(bigint) is
  'A whole tree from the changes alone, without what upkeep made of them: slower than shell.tree_entries the longer its '
  'history is.';

create function shell.wrong_in_tree(tree_id bigint) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  tree shell.trees;
  changes shell.fs_entries[];
  parent_hash bytea;
begin
  select t.* into tree from shell.trees as t where t.id = wrong_in_tree.tree_id;
  if not found then
    return format('tree %s is missing', wrong_in_tree.tree_id);
  end if;
  changes := array(select e from shell.fs_entries as e where e.tree_id = tree.id);
  if tree.listing_hash is null then
    select t.hash into parent_hash from shell.trees as t where t.id = tree.parent_id;
    if tree.hash <> shell.tree_hash(parent_hash, tree, shell.changes_hash(changes)) then
      return format('tree %s or what it changes was altered', tree.id);
    end if;
  else
    if tree.listing_hash <> shell.changes_hash(changes) then
      return format('what tree %s changes was altered', tree.id);
    end if;
    -- Its own hash is of what it changed before retention took more into it, and of what it has.
    tree.changes := tree.first_changes;
    if tree.hash is distinct from shell.tree_hash(tree.first_parent_hash, tree, tree.first_changes_hash) then
      return format('tree %s was altered', tree.id);
    end if;
    if (tree.entries, tree.bytes, tree.shape) is distinct from (
      select row(count(*), coalesce(sum(e.size), 0)::bigint,
        coalesce(bit_xor(shell.entry_shape(e.path, e.kind, e.mode, e.content, e.target)), 0))
      from shell.plain_entries(tree.id) as e)
    then
      return format('tree %s does not have what it had', tree.id);
    end if;
  end if;
  if tree.merged and exists (
    (select e from shell.tree_entries(tree.id) as e except all select e from shell.plain_entries(tree.id) as e)
    union all
    (select e from shell.plain_entries(tree.id) as e except all select e from shell.tree_entries(tree.id) as e)
  ) then
    return format('the checkpoint of tree %s is not what its changes say', tree.id);
  end if;
  return null;
end
$$;
comment on function shell.wrong_in_tree(bigint) is 'What was altered of a tree, or null.';

create function shell.verify_history(environment_id uuid) returns table (command_id bigint, problem text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  session shell.environments;
  command shell.commands;
  tree record;
  tree_hash bytea;
  checked bigint[] := '{}';
  left_tree bigint;
  ran boolean := false;
begin
  perform shell.tree_at(verify_history.environment_id, null);
  select e.* into session from shell.environments as e where e.id = verify_history.environment_id;

  if session.forked_from_command_id is not null and not exists (
    select from shell.commands as c
    where c.id = session.forked_from_command_id
      and session.origin_hash in (c.hash, sha256(shell.hash_before(c.environment_id, c.id)))
    union all
    select from shell.removed_commands as r
    where r.command_id = session.forked_from_command_id and r.environment_id = session.parent_id
  ) then
    command_id := session.forked_from_command_id;
    problem := 'the command that the session was forked from is missing, or another than it was';
    return next;
    return;
  end if;

  for command in
    select c.* from shell.commands as c
    where c.environment_id = verify_history.environment_id
      and (c.status in ('done', 'failed') or c.hash is not null)
    order by c.id
  loop
    command_id := command.id;
    -- What it began with, and what it left, each with the ancestors that were not looked at yet.
    for tree in
      with recursive up as (
        select t.id, t.parent_id
        from unnest(array[command.tree_id, command.tree_after]) as own (id)
        left join shell.trees as t on t.id = own.id
        where own.id is not null and own.id <> all (checked)
        union
        select t.id, t.parent_id
        from up
        join shell.trees as t on t.id = up.parent_id
        where t.id <> all (checked)
      )
      select up.id, coalesce(shell.wrong_in_tree(up.id), case when up.id is null then 'a tree of it is missing' end) as wrong
      from up
      order by up.id
    loop
      if tree.wrong is not null then
        problem := tree.wrong;
        return next;
        return;
      end if;
      checked := checked || tree.id;
    end loop;

    tree_hash := null;
    select t.hash into tree_hash from shell.trees as t where t.id = coalesce(command.tree_after, command.tree_id);
    if command.hash is distinct from shell.command_hash(
      command, case when command.attempt > 0 then shell.hash_before(session.id, command.id) else '' end, tree_hash)
    then
      problem := 'its row, its files or what stood before it was altered';
      return next;
      return;
    end if;
    if command.attempt > 0 then
      if ran and command.tree_id is distinct from left_tree then
        problem := 'it did not begin with the files that were left';
        return next;
        return;
      end if;
      ran := true;
      left_tree := coalesce(command.tree_after, command.tree_id);
    end if;
  end loop;

  if ran and session.tree_id is distinct from left_tree then
    problem := 'the session does not have the files that its last command left';
    return next;
  end if;
end
$$;
comment on function shell.verify_history(uuid) is
  'No row where the finished commands of a session, and all files that they had, are what they were. Else the first that '
  'is not, and why. Raises PS002 for an unknown session.';

create function shell.verify_files(environment_id uuid, at bigint default null)
returns table (path text, problem text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  entry record;
begin
  for entry in
    select e.path as bytes, e.content
    from shell.tree_entries(shell.tree_at(verify_files.environment_id, verify_files.at)) as e
    where e.kind = 'file'
  loop
    begin
      perform shell.content_bytes(entry.content);
    exception
      when sqlstate 'PS031' then
        path := shell.path_text(entry.bytes);
        problem := sqlerrm;
        return next;
      when sqlstate 'PS041' or sqlstate 'PS042' then
        null;
    end;
  end loop;
end
$$;
comment on function shell.verify_files(uuid, bigint) is
  'No row where the content of every file of a session, now or as a command left it, is what its hash says; else each '
  'that is not. What is kept elsewhere, or is larger than one value, is not looked at. Raises PS002, PS006, PS007.';
