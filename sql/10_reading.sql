-- What a person reads of files. Paths are absolute texts here; what of them is not UTF-8, and a backslash, stands as in
-- bytea's escape format, so that a path that is given out is taken back.

create function shell.path_text(path bytea) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  escaped constant text := '/home/sandbox/' || encode(path, 'escape');
begin
  if position('\' in escaped) > 0 then
    begin
      return '/home/sandbox/' || replace(convert_from(path, 'UTF8'), '\', '\\');
    exception when character_not_in_repertoire or untranslatable_character then
      return escaped;
    end;
  end if;
  return escaped;
end
$$;
comment on function shell.path_text(bytea) is 'A path below the home folder as people read it.';

create function shell.home_path(path text) returns bytea
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  bytes bytea;
begin
  if home_path.path like '/home/sandbox/_%' then
    -- The octal escapes are of the bytes as UTF-8, whatever the database's encoding.
    bytes := decode(
      replace(encode(convert_to(substring(home_path.path from 15), 'UTF8'), 'escape'), '\\', '\'),
      'escape')::shell.relative_path;
  end if;
  if bytes is null or exists (
    select from shell.ancestors(bytes || '\x2f78') as a (path)
    where octet_length(a.path) - coalesce(
      (select max(octet_length(b.path)) + 1 from shell.ancestors(a.path) as b (path)), 0) > 255
  ) then
    raise check_violation;
  end if;
  return bytes;
exception when check_violation or invalid_text_representation or invalid_parameter_value then
  raise exception using
    errcode = 'PS037',
    message = format('%s is no path of a file', coalesce(quote_literal(left(home_path.path, 200)), 'null')),
    hint = 'Files are below /home/sandbox/. Write a backslash as \\ and a byte that is not UTF-8 as \ooo.';
end
$$;
comment on function shell.home_path(text) is 'The path below the home folder, as bytes. Raises PS037 where it is none.';

create function shell.time_of(nanoseconds bigint) returns timestamptz
language sql immutable strict parallel safe
return '1970-01-01 00:00:00+00'::timestamptz + nanoseconds / 1000 * interval '1 microsecond';
comment on function shell.time_of(bigint) is 'A time from nanoseconds since 1970.';

create function shell.mode_text(mode int) returns text
language sql immutable strict parallel safe
return (mode >> 9)::text || ((mode >> 6) & 7)::text || ((mode >> 3) & 7)::text || (mode & 7)::text;
comment on function shell.mode_text(int) is 'Permissions as four octal digits.';

create function shell.tree_at(environment_id uuid, at bigint) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  tree bigint;
  command shell.commands;
begin
  select e.tree_id into tree from shell.environments as e where e.id = tree_at.environment_id;
  if not found then
    raise exception using
      errcode = 'PS002',
      message = format('there is no session %s', coalesce(tree_at.environment_id::text, '(null)')),
      hint = 'The user''s sessions are in shell.environments.';
  end if;
  if tree_at.at is null then
    return tree;
  end if;
  command := shell.require_command(tree_at.at);
  if command.environment_id <> tree_at.environment_id then
    raise exception using
      errcode = 'PS006',
      message = format('session %s has no command %s', tree_at.environment_id, command.id),
      hint = 'Name a command of this session, or the session that the command is of.';
  end if;
  return shell.tree_left(command);
end
$$;
comment on function shell.tree_at(uuid, bigint) is
  'The files of a session now, or as a command left them. Raises PS002, PS006, and PS007 where it has not ended.';

create function shell.tree_left(command shell.commands) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if command.status not in ('done', 'failed') then
    raise exception using
      errcode = 'PS007',
      message = format('command %s has not ended, so it has left no files yet', command.id),
      hint = 'Wait for it with shell.wait_command(), or look at an earlier command.';
  end if;
  if command.attempt = 0 then
    -- It never began: what the one before it left.
    return coalesce(
      (select coalesce(c.tree_after, c.tree_id) from shell.commands as c
       where c.environment_id = command.environment_id and c.id < command.id and c.attempt > 0
       order by c.id desc limit 1),
      (select c.tree_id from shell.commands as c
       where c.environment_id = command.environment_id and c.id > command.id and c.attempt > 0
       order by c.id limit 1),
      (select e.tree_id from shell.environments as e where e.id = command.environment_id));
  end if;
  return coalesce(command.tree_after, command.tree_id);
end
$$;
comment on function shell.tree_left(shell.commands) is 'The files that a command left. Raises PS007 where it has not ended.';

create function shell.files(environment_id uuid, at bigint default null)
returns table (
  path text, type text, mode text, size bigint, sha256 text, modified_at timestamptz, target text, link bigint,
  changed_by bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select shell.path_text(e.path), e.kind,
      shell.mode_text(e.mode), e.size,
      encode(e.content, 'hex'), shell.time_of(e.mtime_ns), encode(e.target, 'escape'), e.link, t.command_id
    from shell.tree_entries(shell.tree_at(files.environment_id, files.at)) as e
    left join shell.trees as t on t.id = e.changed_in
    order by e.path;
end
$$;
comment on function shell.files(uuid, bigint) is
  'The files of a session, now or as a command left them. changed_by is the command that made each what it is, null '
  'where retention removed it; files with the same link are hard links of each other. Raises PS002, PS006, PS007.';

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

create function shell.tree_differences(old_tree bigint, new_tree bigint)
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
          case when (c.old).kind <> 'folder' then (c.old).mtime_ns end)
        is distinct from ((c.new).kind, (c.new).mode, (c.new).content, (c.new).target,
          case when (c.new).kind <> 'folder' then (c.new).mtime_ns end)
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
comment on function shell.tree_differences(bigint, bigint) is
  'What has to be done to one tree to have the other: created, modified, deleted, renamed.';

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
    version as (
      select t.*, coalesce(lag(t.kind) over (order by t.id), 'gone') as kind_before from touched as t
    )
    select case when not v.inherited then v.command_id end,
      case when v.kind = 'gone' then 'deleted' when v.kind_before = 'gone' then 'created' else 'modified' end,
      nullif(v.kind, 'gone'), v.size, encode(v.content, 'hex'),
      shell.mode_text(v.mode),
      shell.time_of(v.mtime_ns), v.created_at
    from version as v
    where not (v.kind = 'gone' and v.kind_before = 'gone')
    order by v.id;
end
$$;
comment on function shell.file_history(uuid, text) is
  'Which commands made a path what it was, the oldest first, those before a fork among them. Raises PS002, PS037.';

create function shell.content_bytes(content bytea) returns bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  whole shell.contents;
  number bigint;
  stored record;
  pieces bytea[] := '{}';
  answer bytea;
  wrong text;
begin
  select c.* into whole from shell.contents as c where c.hash = content_bytes.content;
  if not found then
    if exists (select from shell.removed_versions as r where r.content = content_bytes.content) then
      raise exception using
        errcode = 'PS039',
        message = format('content %s was removed by retention', encode(content_bytes.content, 'hex')),
        hint = 'shell.removed_versions tells which versions of which files went, and when.';
    end if;
    wrong := format('content %s is missing', encode(content_bytes.content, 'hex'));
  elsif whole.size > 536870912 then
    raise exception using
      errcode = 'PS041',
      message = format('the file has %s bytes, more than one value may have', whole.size),
      hint = 'Read it in its session, with head, tail or dd.';
  else
    for stored in
      select h.chunk, k.hash, k.bytes, k.content_url
      from unnest(shell.split_hashes(whole.chunks)) with ordinality as h (chunk, number)
      left join shell.chunks as k on k.hash = h.chunk
      order by h.number
    loop
      if stored.hash is null then
        wrong := format('chunk %s is missing', encode(stored.chunk, 'hex'));
      elsif stored.bytes is null and stored.content_url is not null then
        raise exception using
          errcode = 'PS042',
          message = format('chunk %s is kept outside the database, at %s', encode(stored.chunk, 'hex'), stored.content_url),
          hint = 'Read the file in its session: a worker can fetch it.';
      elsif stored.bytes is null or sha256(stored.bytes) <> stored.chunk then
        wrong := format('chunk %s was altered', encode(stored.chunk, 'hex'));
      end if;
      exit when wrong is not null;
      pieces := pieces || stored.bytes;
    end loop;
    if wrong is null then
      select coalesce(string_agg(p.piece, '' order by p.number), '') into answer
      from unnest(pieces) with ordinality as p (piece, number);
      if sha256(answer) <> content_bytes.content then
        wrong := format('content %s was altered', encode(content_bytes.content, 'hex'));
      end if;
    end if;
  end if;
  if wrong is not null then
    raise exception using
      errcode = 'PS031',
      message = wrong,
      hint = 'Nothing of it is given out. Store the same bytes again, or bring the row back from a backup.';
  end if;
  return answer;
end
$$;
comment on function shell.content_bytes(bytea) is
  'What a file holds, checked against its hash and each chunk''s. Raises PS031 where that is missing or altered, PS039 '
  'where retention has removed it, PS041 '
  'where it is too large for one value, PS042 where a chunk is kept elsewhere.';

create function shell.file_in_tree(tree_id bigint, path text) returns shell.tree_entry
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  entry shell.tree_entry;
begin
  select e.* into entry from shell.find_entries(file_in_tree.tree_id, array[shell.home_path(file_in_tree.path)]) as e;
  if entry.kind is distinct from 'file' then
    raise exception using
      errcode = 'PS032',
      message = case
        when entry.path is null then format('there is no file %s', file_in_tree.path)
        else format('%s is a %s', file_in_tree.path, entry.kind) end,
      hint = case
        when entry.kind = 'symlink' then format('It points to %s.', encode(entry.target, 'escape'))
        else 'shell.files() lists the files; shell.file_history() tells when one was there.' end;
  end if;
  return entry;
end
$$;
comment on function shell.file_in_tree(bigint, text) is 'The file at a path. Raises PS032 where there is none.';

create function shell.read_file(environment_id uuid, path text, at bigint default null) returns bytea
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return shell.content_bytes(
    (shell.file_in_tree(shell.tree_at(read_file.environment_id, read_file.at), read_file.path)).content);
end
$$;
comment on function shell.read_file(uuid, text, bigint) is
  'What a file of a session holds, now or as a command left it. Raises PS032 where there is no such file, PS031 where '
  'its content is missing or altered, PS002, PS006, PS007, PS037, PS041, PS042.';

create function shell.diff(from_command bigint, to_command bigint, path text default null) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  old_tree constant bigint := shell.tree_left(shell.require_command(diff.from_command));
  new_tree constant bigint := shell.tree_left(shell.require_command(diff.to_command));
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
    if greatest(pair.old_size, pair.new_size) > 67108864 then
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
  'What differs between the files that two commands left, as diff -u prints it: of one path, or of all. '
  'Raises PS032 where neither left such a file, PS031 where a content is missing or altered, PS006, PS007, PS037.';
