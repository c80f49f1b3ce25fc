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
    select from (
      select n.ends - coalesce(lag(n.ends) over (order by n.ends) + 1, 0) as length
      from (select octet_length(a.path) as ends from shell.ancestors(bytes || '\x2f78') as a (path)) as n
    ) as name
    where name.length > 255
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
  select c.* into command from shell.commands as c
  where c.id = tree_at.at and c.environment_id = tree_at.environment_id;
  if not found then
    raise exception using
      errcode = 'PS006',
      message = format('session %s has no command %s', tree_at.environment_id, tree_at.at),
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
declare
  tree bigint;
begin
  if command.status not in ('done', 'failed') then
    raise exception using
      errcode = 'PS007',
      message = format('command %s has not ended, so it has left no files yet', command.id),
      hint = 'Wait for it with shell.wait_command(), or look at an earlier command.';
  end if;
  if command.attempt = 0 then
    -- It never began: what the one before it left, or the one after it began with.
    select coalesce(c.tree_after, c.tree_id) into tree from shell.commands as c
    where c.environment_id = command.environment_id and c.id < command.id and c.attempt > 0
    order by c.id desc
    limit 1;
    if found then
      return tree;
    end if;
    select c.tree_id into tree from shell.commands as c
    where c.environment_id = command.environment_id and c.id > command.id and c.attempt > 0
    order by c.id
    limit 1;
    if found then
      return tree;
    end if;
    return (select e.tree_id from shell.environments as e where e.id = command.environment_id);
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
          message = format('chunk %s is kept outside the database', encode(stored.chunk, 'hex')),
          hint = 'Read the file by a command in its session, with cat or head: a worker fetches it. Postgres does not.';
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
