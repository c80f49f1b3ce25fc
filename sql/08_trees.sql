-- Making trees and reading them. Whoever is asked for a tree walks up its ancestors, and of each path the newest row
-- counts, unless a newer one has replaced a folder above it.

create function shell.changes_hash(changes shell.fs_entries[]) returns bytea
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return sha256(coalesce((
    select string_agg(
      sha256(convert_to(
        encode(c.path, 'hex') || ' ' || c.kind || ' ' || case when c.replaces then 'replaces' else '-' end
        || ' ' || coalesce(c.mode::text, '-') || ' ' || coalesce(c.mtime_ns::text, '-')
        || ' ' || coalesce(c.size::text, '-')
        || ' ' || coalesce(encode(coalesce(c.content, c.removed_content), 'hex'), '-')
        || ' ' || coalesce(encode(c.target, 'hex'), '-') || ' ' || coalesce(c.link_group::text, '-'), 'UTF8')),
      '' order by c.path)
    from unnest(changes) as c), ''));
end
$$;
comment on function shell.changes_hash(shell.fs_entries[]) is
  'SHA-256 of the SHA-256 of each change, in the order of paths.';

create function shell.tree_hash(parent_hash bytea, tree shell.trees, changes_hash bytea) returns bytea
language sql stable parallel safe
return sha256(
  coalesce(parent_hash, '\x00')
  || sha256(convert_to(
    (tree).user_id::text || ' ' || (tree).command_id::text || ' ' || (tree).shape::text
    || ' ' || (tree).entries::text || ' ' || (tree).bytes::text || ' ' || (tree).changes::text, 'UTF8'))
  || changes_hash
);
comment on function shell.tree_hash(bytea, shell.trees, bytea) is
  'The hash of a tree, from its parent''s, from its row, and from what it changes.';

create function shell.entry_shape(path bytea, kind text, mode int, content bytea, target bytea) returns bigint
language sql stable parallel safe
return ('x' || left(encode(sha256(sha256(path) || convert_to(kind || coalesce(mode::text, '-'), 'UTF8')
  || coalesce(content, sha256(target), '\x00')), 'hex'), 16))::bit(64)::bigint;
comment on function shell.entry_shape(bytea, text, int, bytea, bytea) is
  'A number of what is at a path, but for its time. A tree''s shape is all of its entries'', by exclusive or: so it can be '
  'told from what has changed, and two trees be compared by it. It is no proof of anything.';

-- Not strict, and without a search_path: it would not be inlined.
create function shell.ancestors(path bytea) returns setof bytea
language sql immutable parallel safe rows 4
as $$
  select substring(path from 1 for n) from generate_series(1, octet_length(path) - 1) as n where get_byte(path, n) = 47
$$;
comment on function shell.ancestors(bytea) is 'The folders above a path, below the home folder.';

create function shell.hidden_paths(paths bytea[], numbers bigint[], replaced bytea[], replaced_numbers bigint[])
returns setof bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- Statistics know little of what replaces: a nested loop would look through all of it for each folder of each path.
set enable_nestloop = off
set enable_mergejoin = off
as $$
begin
  return query
    select n.path
    from unnest(hidden_paths.paths, hidden_paths.numbers) as n (path, number)
    cross join shell.ancestors(n.path) as a (path)
    join unnest(hidden_paths.replaced, hidden_paths.replaced_numbers) as h (path, number)
      on h.path = a.path and h.number < n.number;
end
$$;
comment on function shell.hidden_paths(bytea[], bigint[], bytea[], bigint[]) is
  'Which of these paths, each by the number of the tree that says what is there, are below a folder that a newer tree has '
  'replaced.';

create function shell.tree_segments(
  tree_id bigint, out ids bigint[], out merged boolean[], out plain_ids bigint[], out merged_ids bigint[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
-- One tree after another, by its key: any other join would read all trees for each.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  with recursive up as (
    select 1 as number, t.id, t.merged, case when t.merged then t.base_id else t.parent_id end as next_id
    from shell.trees as t where t.id = tree_segments.tree_id
    union all
    select up.number + 1, t.id, t.merged, case when t.merged then t.base_id else t.parent_id end
    from up
    join shell.trees as t on t.id = up.next_id
  )
  select array_agg(up.id order by up.number), array_agg(up.merged order by up.number),
    array_agg(up.id) filter (where not up.merged), array_agg(up.id) filter (where up.merged)
  into ids, merged, plain_ids, merged_ids
  from up;
end
$$;
comment on function shell.tree_segments(bigint) is
  'The trees whose changes make up a tree, the newest first, and whether those are merged ones; and the ids of either '
  'kind alone.';

create type shell.tree_entry as (
  path bytea,
  kind text,
  mode int,
  mtime_ns bigint,
  size bigint,
  content bytea,
  target bytea,
  link bigint,
  changed_in bigint
);
comment on type shell.tree_entry is
  'What is at a path. Files with the same link are hard links of each other; changed_in is the tree that put it there.';

create function shell.find_entries(tree_id bigint, paths bytea[]) returns setof shell.tree_entry
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  segments record;
begin
  if find_entries.tree_id is null then
    return;
  end if;
  segments := shell.tree_segments(find_entries.tree_id);
  return query
    with candidate as (
      select p.path, shell.path_key(p.path) as key from unnest(find_entries.paths) as p (path)
      union
      select a.path, shell.path_key(a.path)
      from unnest(find_entries.paths) as p (path), shell.ancestors(p.path) as a (path)
    ),
    -- "offset 0" has each path looked up by its key. A plain join may be planned as a read of all that the trees have.
    changed as materialized (
      select array_position(segments.ids, e.tree_id) as number, w.path, e.kind, e.replaces, e.mode, e.mtime_ns, e.size,
        coalesce(e.content, e.removed_content)::bytea as content, e.target,
        (e.tree_id << 24) | e.link_group as link, case when not e.inherited then e.tree_id end as changed_in
      from candidate as w
      cross join lateral (
        select f.* from shell.fs_entries as f
        where f.tree_id = any (segments.plain_ids) and shell.path_key(f.path) = w.key
        offset 0
      ) as e
      union all
      select array_position(segments.ids, e.tree_id), w.path, e.kind, e.replaces, e.mode, e.mtime_ns, e.size,
        e.content, e.target, e.link, e.changed_in
      from candidate as w
      cross join lateral (
        select c.* from shell.checkpoints as c
        where c.tree_id = any (segments.merged_ids) and shell.path_key(c.path) = w.key
        offset 0
      ) as e
    ),
    newest as (
      select distinct on (c.path) c.* from changed as c order by c.path, c.number
    ),
    -- Few, and mostly none.
    replacing as materialized (
      select c.path || '\x2f'::bytea as beginning, min(c.number) as number
      from changed as c
      where c.replaces
      group by c.path
    )
    select n.path, n.kind, n.mode, n.mtime_ns, n.size, n.content, n.target, n.link, n.changed_in
    from newest as n
    where n.kind <> 'gone' and n.path = any (find_entries.paths)
      and not exists (
        select from replacing as h
        where h.number < n.number and substring(n.path from 1 for octet_length(h.beginning)) = h.beginning
      );
end
$$;
comment on function shell.find_entries(bigint, bytea[]) is
  'What a tree has at these few paths; takes as long as they are many and the tree is deep, however large it is.';

create function shell.tree_entries(tree_id bigint) returns setof shell.tree_entry
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  segments record;
begin
  if tree_entries.tree_id is null then
    return;
  end if;
  segments := shell.tree_segments(tree_entries.tree_id);
  return query
    with segment as (
      select s.id, s.merged, s.number
      from unnest(segments.ids, segments.merged) with ordinality as s (id, merged, number)
    ),
    changed as (
      select s.number, e.path, e.kind, e.replaces, e.mode, e.mtime_ns, e.size,
        coalesce(e.content, e.removed_content)::bytea as content, e.target,
        (s.id << 24) | e.link_group as link, case when not e.inherited then s.id end as changed_in
      from segment as s
      join shell.fs_entries as e on e.tree_id = s.id
      where not s.merged
      union all
      select s.number, e.path, e.kind, e.replaces, e.mode, e.mtime_ns, e.size, e.content, e.target, e.link,
        e.changed_in
      from segment as s
      join shell.checkpoints as e on e.tree_id = s.id
      where s.merged
    ),
    newest as (
      select distinct on (c.path) c.* from changed as c order by c.path, c.number
    ),
    -- Few, and mostly none: folders that were taken away or replaced.
    replacing as (
      select h.path, min(h.number) as number
      from (
        select s.number, e.path
        from segment as s
        join shell.fs_entries as e on e.tree_id = s.id and e.replaces
        where not s.merged
        union all
        select s.number, e.path
        from segment as s
        join shell.checkpoints as e on e.tree_id = s.id and e.replaces
        where s.merged
      ) as h
      group by h.path
    ),
    hidden as (
      select h.path
      from (select where exists (select from replacing)) as any_replaces
      cross join lateral shell.hidden_paths(
        (select array_agg(n.path) from newest as n), (select array_agg(n.number) from newest as n),
        (select array_agg(r.path) from replacing as r), (select array_agg(r.number) from replacing as r)
      ) as h (path)
    )
    select n.path, n.kind, n.mode, n.mtime_ns, n.size, n.content, n.target, n.link, n.changed_in
    from newest as n
    where n.kind <> 'gone' and n.path not in (select h.path from hidden as h)
    order by n.path;
end
$$;
comment on function shell.tree_entries(bigint) is
  'A whole tree, each folder before what is in it; takes as long as the tree is large, however old it is.';

create function shell.tree_changes(tree_id bigint)
returns table (
  path bytea, kind text, mode int, mtime_ns bigint, size bigint, content bytea, target bytea, link bigint,
  replaces boolean
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select e.path::bytea, e.kind, e.mode, e.mtime_ns, e.size, coalesce(e.content, e.removed_content)::bytea, e.target,
      (e.tree_id << 24) | e.link_group, e.replaces
    from shell.fs_entries as e
    where e.tree_id = tree_changes.tree_id
    order by e.path;
end
$$;
comment on function shell.tree_changes(bigint) is 'What a tree changes against its parent, by path.';
