-- Long histories are made quick to read: what several trees change is written once more, together. Nothing but speed
-- depends on it.

create function shell.merged_changes(ids bigint[], merged boolean[], whole boolean)
returns table (
  path bytea, kind text, replaces boolean, mode int, mtime_ns bigint, size bigint, content bytea, target bytea,
  link bigint, changed_in bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with segment as (
      select s.id, s.merged, s.number
      from unnest(merged_changes.ids, merged_changes.merged) with ordinality as s (id, merged, number)
    ),
    changed as (
      select s.number, e.path::bytea, e.kind, e.replaces, e.mode, e.mtime_ns, e.size,
        coalesce(e.content, e.removed_content)::bytea as content, e.target,
        (s.id << 24) | e.link_group as link, case when not e.inherited then s.id end as changed_in
      from segment as s
      join shell.fs_entries as e on e.tree_id = s.id
      where not s.merged
      union all
      select s.number, e.path, e.kind, e.replaces, e.mode, e.mtime_ns, e.size, e.content, e.target, e.link, e.changed_in
      from segment as s
      join shell.checkpoints as e on e.tree_id = s.id
      where s.merged
    ),
    newest as (
      select distinct on (c.path)
        c.number, c.path, c.kind, bool_or(c.replaces) over (partition by c.path) as replaces, c.mode, c.mtime_ns,
        c.size, c.content, c.target, c.link, c.changed_in
      from changed as c
      order by c.path, c.number
    ),
    replacing as materialized (
      select c.path, min(c.number) as number from changed as c where c.replaces group by c.path
    ),
    hidden as (
      select h.path
      from (select where exists (select from replacing)) as any_replaces
      cross join lateral shell.hidden_paths(
        (select array_agg(n.path) from newest as n), (select array_agg(n.number) from newest as n),
        (select array_agg(r.path) from replacing as r), (select array_agg(r.number) from replacing as r)
      ) as h (path)
    )
    select n.path, n.kind, n.replaces and not whole, n.mode, n.mtime_ns, n.size, n.content, n.target, n.link, n.changed_in
    from newest as n
    where n.path not in (select h.path from hidden as h) and not (whole and n.kind = 'gone');
end
$$;
comment on function shell.merged_changes(bigint[], boolean[], boolean) is
  'What several trees change together, the newest first, against the next older one; or, whole, all there is.';

create function shell.merge_tree(tree_id bigint, whole boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  at_once constant int := 16;
  segments record;
  taken int := 0;
  rows_taken bigint := 0;
  rows_next bigint;
  base shell.trees;
  merged_rows shell.checkpoints[];
begin
  segments := shell.tree_segments(merge_tree.tree_id);
  -- Sets of changes grow as they are merged, and are merged with what is no larger: so each change is written again only
  -- as often as the history doubles.
  loop
    exit when taken = cardinality(segments.ids);
    select greatest(t.rows_read - coalesce(n.rows_read, 0), 0) into rows_next
    from shell.trees as t
    left join shell.trees as n on n.id = segments.ids[taken + 2]
    where t.id = segments.ids[taken + 1];
    exit when not whole and taken >= at_once and rows_next > rows_taken;
    taken := taken + 1;
    rows_taken := rows_taken + rows_next;
  end loop;
  select t.* into base from shell.trees as t where t.id = segments.ids[taken + 1];

  merged_rows := array(
    select (merge_tree.tree_id, m.path, m.kind, m.replaces, m.mode, m.mtime_ns, m.size, m.content, m.target, m.link,
      m.changed_in)::shell.checkpoints
    from shell.merged_changes(segments.ids[:taken], segments.merged[:taken], base.id is null) as m);
  delete from shell.checkpoints as c where c.tree_id = merge_tree.tree_id;
  insert into shell.checkpoints select m.* from unnest(merged_rows) as m;
  update shell.trees as t
  set merged = true, base_id = base.id, depth = coalesce(base.depth, 0) + 1,
      rows_read = coalesce(base.rows_read, 0) + cardinality(merged_rows)
  where t.id = merge_tree.tree_id;
end
$$;
comment on function shell.merge_tree(bigint, boolean) is
  'Writes what a tree and ancestors of it change together; whole, all that there is, so that nothing else is read for it.';

create function shell.is_slow(tree shell.trees) returns boolean
language sql immutable
return (tree).depth > 32 or (tree).rows_read > 256 + 3 * (tree).entries;
comment on function shell.is_slow(shell.trees) is 'Whether more is read for a tree than it is large; see the index trees_to_merge.';

create function shell.quicken_tree(tree_id bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  tree shell.trees;
  parent shell.trees;
  slow_parent boolean;
begin
  select t.* into tree from shell.trees as t where t.id = quicken_tree.tree_id;
  select p.* into parent from shell.trees as p where p.id = tree.parent_id;
  if not tree.merged then
    -- The parent may have become quicker to read since.
    tree.depth := coalesce(parent.depth, 0) + 1;
    tree.rows_read := coalesce(parent.rows_read, 0) + tree.changes;
    if tree.rows_read <= 256 + 3 * tree.entries then
      slow_parent := tree.depth > 32;
    else
      slow_parent := parent.entries + tree.changes <= 256 + 3 * tree.entries
        and not (parent.merged and parent.base_id is null);
    end if;
    if slow_parent then
      -- Rather the parent, which all its forks have in common, if that is enough.
      perform shell.merge_tree(parent.id, tree.rows_read > 256 + 3 * tree.entries);
      select p.* into parent from shell.trees as p where p.id = tree.parent_id;
      tree.depth := parent.depth + 1;
      tree.rows_read := parent.rows_read + tree.changes;
    end if;
    update shell.trees as t set depth = tree.depth, rows_read = tree.rows_read where t.id = tree.id;
  end if;
  if shell.is_slow(tree) then
    perform shell.merge_tree(tree.id, true);
    -- A whole listing is as small as it can be.
    update shell.trees as t set depth = 1, rows_read = least(t.rows_read, t.entries) where t.id = tree.id;
  end if;
end
$$;
comment on function shell.quicken_tree(bigint) is 'Makes a tree for which too much is read quicker to read.';
