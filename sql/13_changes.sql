-- What changed: between two trees, by a command, of a path, and within texts.

create function shell.compare_trees(old_tree bigint, new_tree bigint)
returns table (old shell.tree_entry, new shell.tree_entry)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  changed bytea[];
begin
  if old_tree is not distinct from new_tree then
    return;
  end if;
  -- Of a child only what it changes is looked at, unless a whole folder went.
  if exists (
    select from shell.trees as t
    where t.id = new_tree and t.parent_id is not distinct from old_tree and t.changes <= 200
      and t.listing_hash is null
  ) and not exists (select from shell.fs_entries as e where e.tree_id = new_tree and e.replaces) then
    changed := array(select e.path::bytea from shell.fs_entries as e where e.tree_id = new_tree);
    return query
      select o, n
      from shell.find_entries(old_tree, changed) as o
      full join shell.find_entries(new_tree, changed) as n on n.path = o.path
      order by coalesce(n.path, o.path);
  else
    return query
      select o, n
      from shell.tree_entries(old_tree) as o
      full join shell.tree_entries(new_tree) as n on n.path = o.path
      where (o.kind, o.mode, o.mtime_ns, o.size, o.content, o.target)
        is distinct from (n.kind, n.mode, n.mtime_ns, n.size, n.content, n.target)
      order by coalesce(n.path, o.path);
  end if;
end
$$;
comment on function shell.compare_trees(bigint, bigint) is
  'What is at each path where two trees differ, in the older one and in the newer; null where nothing is.';

create function shell.tree_differences(old_tree bigint, new_tree bigint, with_times boolean default true)
returns table (
  change text, path text, old_path text, type text, old_size bigint, size bigint, old_sha256 text, sha256 text,
  old_mode int, mode int
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with compared as materialized (
      select c.old, c.new, coalesce((c.new).path, (c.old).path) as at_path,
        case when (c.old).path is null then 'created' when (c.new).path is null then 'deleted' else 'modified' end as what
      from shell.compare_trees(tree_differences.old_tree, tree_differences.new_tree) as c
      -- A folder's time changes with what is in it.
      where ((c.old).kind, (c.old).mode, (c.old).content, (c.old).target,
          case when with_times and (c.old).kind <> 'folder' then (c.old).mtime_ns end)
        is distinct from ((c.new).kind, (c.new).mode, (c.new).content, (c.new).target,
          case when with_times and (c.new).kind <> 'folder' then (c.new).mtime_ns end)
    ),
    -- A file that went, and one that came with the same content, are one that was renamed.
    went as (
      select c.old, c.at_path, row_number() over (partition by (c.old).content order by c.at_path) as number
      from compared as c where c.what = 'deleted' and (c.old).size > 0
    ),
    came as (
      select c.at_path, (c.new).content, row_number() over (partition by (c.new).content order by c.at_path) as number
      from compared as c where c.what = 'created' and (c.new).size > 0
    ),
    renamed as (
      select came.at_path, went.old, went.at_path as old_path
      from came
      join went on (went.old).content = came.content and went.number = came.number
    )
    select
      case when r.at_path is not null then 'renamed' else c.what end,
      shell.path_text(c.at_path), shell.path_text(r.old_path), coalesce((c.new).kind, (c.old).kind),
      coalesce((c.old).size, (r.old).size), (c.new).size,
      encode(coalesce((c.old).content, (r.old).content), 'hex'), encode((c.new).content, 'hex'),
      coalesce((c.old).mode, (r.old).mode), (c.new).mode
    from compared as c
    left join renamed as r on r.at_path = c.at_path
    where not exists (select from renamed as gone where gone.old_path = c.at_path)
    order by c.at_path;
end
$$;
comment on function shell.tree_differences(bigint, bigint, boolean) is
  'What has to be done to one tree to have the other: created, modified, deleted, renamed; without times, what differs '
  'in nothing else is passed over.';

create function shell.file_changes(command_id bigint)
returns table (
  change text, path text, old_path text, type text, old_size bigint, size bigint, old_sha256 text, sha256 text,
  old_mode text, mode text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  command constant shell.commands := shell.require_command(file_changes.command_id);
begin
  perform shell.tree_left(command);
  if command.tree_after is null then
    return;
  end if;
  return query
    select d.change, d.path, d.old_path, d.type, d.old_size, d.size, d.old_sha256, d.sha256,
      shell.mode_text(d.old_mode),
      shell.mode_text(d.mode)
    from shell.tree_differences(command.tree_id, command.tree_after) as d;
end
$$;
comment on function shell.file_changes(bigint) is
  'What a command created, modified, deleted or renamed: a file that went and one that came with the same content. '
  'Raises PS006 for an unknown command, PS007 for one that has not ended.';

create function shell.file_history(environment_id uuid, path text)
returns table (
  command_id bigint, change text, type text, size bigint, sha256 text, mode text, modified_at timestamptz,
  changed_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant bytea := shell.home_path(file_history.path);
  above constant bytea[] := array(select a from shell.ancestors(wanted) as a);
  now_tree constant bigint := shell.tree_at(file_history.environment_id, null);
begin
  return query
    with recursive tree as (
      select t.id, t.parent_id, t.command_id, t.created_at from shell.trees as t
      where t.id = now_tree or t.id in (
        select c.tree_after from shell.commands as c
        where c.environment_id = file_history.environment_id and c.tree_after is not null)
      union
      select t.id, t.parent_id, t.command_id, t.created_at
      from tree
      join shell.trees as t on t.id = tree.parent_id
    ),
    touched as (
      select t.id, t.command_id, t.created_at, e.kind, e.size, coalesce(e.content, e.removed_content)::bytea as content, e.mode,
        e.mtime_ns, e.inherited
      from tree as t
      join shell.fs_entries as e
        on e.tree_id = t.id and shell.path_key(e.path) = shell.path_key(wanted) and e.path = wanted
      union all
      -- Or the folder around it went.
      select distinct on (t.id)
        t.id, t.command_id, t.created_at, 'gone', null::bigint, null::bytea, null::int, null::bigint, false
      from tree as t
      join shell.fs_entries as e on e.tree_id = t.id and e.replaces and e.path = any (above)
      where not exists (
        select from shell.fs_entries as own
        where own.tree_id = t.id and shell.path_key(own.path) = shell.path_key(wanted) and own.path = wanted)
    ),
    -- And what came back with a snapshot, whose tree is an old one.
    restored as (
      select c.id as command_id, c.finished_at, coalesce(e.kind, 'gone') as kind, e.size, e.content, e.mode, e.mtime_ns
      from shell.commands as c
      left join lateral shell.find_entries(c.tree_after, array[wanted]) as e on true
      where c.environment_id = file_history.environment_id and c.tree_after is not null
        and c.action ->> 'do' = 'restore_snapshot'
    ),
    moment as (
      select t.id, case when not t.inherited then t.command_id end as command_id, t.created_at, t.kind, t.size,
        t.content, t.mode, t.mtime_ns, false as comes_back
      from touched as t
      union all
      select null, r.command_id, r.finished_at, r.kind, r.size, r.content, r.mode, r.mtime_ns, true from restored as r
    ),
    version as (
      select m.*, coalesce(lag(m.kind) over w, 'gone') as kind_before, lag(m.content) over w as content_before,
        lag(m.mode) over w as mode_before
      from moment as m
      window w as (order by m.created_at, m.id)
    )
    select v.command_id,
      case when v.kind = 'gone' then 'deleted' when v.kind_before = 'gone' then 'created' else 'modified' end,
      nullif(v.kind, 'gone'), v.size, encode(v.content, 'hex'),
      shell.mode_text(v.mode),
      shell.time_of(v.mtime_ns), v.created_at
    from version as v
    where not (v.kind = 'gone' and v.kind_before = 'gone')
      and not (
        v.comes_back
        and (v.kind, v.content, v.mode) is not distinct from (v.kind_before, v.content_before, v.mode_before))
    order by v.created_at, v.id;
end
$$;
comment on function shell.file_history(uuid, text) is
  'Which commands made a path what it was, the oldest first, those before a fork among them. Raises PS002, PS037.';

create function shell.diff(from_command bigint, to_command bigint, path text default null) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  old_tree constant bigint := shell.tree_left(shell.require_command(diff.from_command));
  new_tree constant bigint := shell.tree_left(shell.require_command(diff.to_command));
  -- Lines are compared in memory, many times what the files take.
  largest constant int := 4194304;
  longest constant int := 16777216;
  until constant timestamptz := clock_timestamp() + interval '10 seconds';
  pair record;
  answer text := '';
begin
  if diff.path is not null and not exists (
    select from shell.find_entries(old_tree, array[shell.home_path(diff.path)])
    union all
    select from shell.find_entries(new_tree, array[shell.home_path(diff.path)])
  ) then
    raise exception using
      errcode = 'PS032',
      message = format('neither command %s nor %s left a file %s', diff.from_command, diff.to_command, diff.path),
      hint = 'shell.files() lists the files; shell.file_history() tells when one was there.';
  end if;
  for pair in
    select (c.old).kind as old_kind, (c.new).kind as new_kind, (c.old).content as old_content,
      (c.new).content as new_content, (c.old).size as old_size, (c.new).size as new_size,
      shell.path_text(coalesce((c.new).path, (c.old).path)) as name
    from shell.compare_trees(old_tree, new_tree) as c
    where (diff.path is null or coalesce((c.new).path, (c.old).path) = shell.home_path(diff.path))
      and (c.old).content is distinct from (c.new).content
  loop
    if octet_length(answer) > longest or clock_timestamp() > until then
      answer := answer || E'The rest is left out: name a path\n';
      exit;
    end if;
    if greatest(pair.old_size, pair.new_size) > largest then
      answer := answer || format(E'Files %s differ, and are too large to compare\n', pair.name);
    else
      answer := answer || shell.unified_diff(
        case when pair.old_kind = 'file' then shell.content_bytes(pair.old_content) end,
        case when pair.new_kind = 'file' then shell.content_bytes(pair.new_content) end,
        format('%s (command %s)', pair.name, diff.from_command), format('%s (command %s)', pair.name, diff.to_command));
    end if;
  end loop;
  return answer;
end
$$;
comment on function shell.diff(bigint, bigint, text) is
  'What differs between the files that two commands left, as diff -u prints it: of one path, or of all. Files of more '
  'than 4 MiB are only named, and of many differences the rest is left out. '
  'Raises PS032 where neither left such a file, PS031 where a content is missing or altered, PS006, PS007, PS037.';
