-- Storing files: chunks, what consists of them, and trees that have it. Within a user's quota.

create function shell.missing_chunks(hashes bytea[]) returns setof bytea
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  -- What is there and old is made young, or it might be collected before the tree that needs it is there.
  update shell.chunks as k set added_at = now()
  where k.hash = any (missing_chunks.hashes) and k.added_at < now() - interval '10 minutes';
  return query
    select distinct h.hash from unnest(missing_chunks.hashes) as h (hash)
    where not exists (select from shell.chunks as k where k.hash = h.hash);
end
$$;
comment on function shell.missing_chunks(bytea[]) is 'Which of these chunks are not stored.';

create function shell.expect_objects(urls text[]) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into shell.unnamed_objects (url) select u from unnest(expect_objects.urls) as u
$$;
comment on function shell.expect_objects(text[]) is
  'Announces objects that are about to be written outside the database, each at an address that none has had before. '
  'What no chunk comes to name within an hour is removed.';

create function shell.add_chunks(hashes bytea[], contents bytea[], urls text[], sizes int[] default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  expected text[];
  lost bytea;
begin
  if add_chunks.urls is not null then
    -- Locked: whoever would give them up passes them over.
    expected := array(
      select u.url from shell.unnamed_objects as u
      where u.url = any (add_chunks.urls) and u.given_up_at is null
      order by u.url
      for update);
  end if;
  -- In one order, or two workers with the same chunks would wait for each other.
  insert into shell.chunks as k (hash, size, bytes, content_url)
  select distinct on (h.hash)
    h.hash, coalesce(octet_length(h.bytes), h.size), h.bytes, case when h.bytes is null then h.url end
  from unnest(add_chunks.hashes, add_chunks.contents, add_chunks.urls, add_chunks.sizes) as h (hash, bytes, url, size)
  where h.bytes is not null or h.url is null or h.url = any (expected)
  order by h.hash
  on conflict (hash) do update set added_at = now() where k.added_at < now() - interval '10 minutes';
  if add_chunks.urls is null then
    return;
  end if;

  -- Of two that were written for one chunk, one stays unnamed.
  delete from shell.unnamed_objects as u
  where u.url = any (expected) and exists (select from shell.chunks as k where k.content_url = u.url);
  select h.hash into lost from unnest(add_chunks.hashes) as h (hash)
  where not exists (select from shell.chunks as k where k.hash = h.hash)
  limit 1;
  if found then
    raise exception using
      errcode = 'PS043',
      message = format('the object for chunk %s was not expected, or was given up', encode(lost, 'hex')),
      hint = 'Announce it with shell.expect_objects(), and write it within an hour.';
  end if;
end
$$;
comment on function shell.add_chunks(bytea[], bytea[], text[], int[]) is
  'Stores chunks: their bytes, or where these are kept and how many there are. '
  'A constraint refuses bytes that are not what the hash says. What is there already is kept for another hour. '
  'Raises PS043 for an object that shell.expect_objects() has not announced.';

create function shell.content_chunks(contents bytea[])
returns table (content bytea, number int, chunk bytea, size int)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select c.hash::bytea, h.number::int, h.chunk, k.size
    from shell.contents as c
    cross join unnest(shell.split_hashes(c.chunks)) with ordinality as h (chunk, number)
    left join shell.chunks as k on k.hash = h.chunk
    where c.hash = any (content_chunks.contents)
    order by c.hash, h.number;
end
$$;
comment on function shell.content_chunks(bytea[]) is
  'The chunks of each content, in order from 1; size is null where a chunk is missing.';

create function shell.read_chunks(hashes bytea[]) returns table (hash bytea, bytes bytea, content_url text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select k.hash::bytea, k.bytes, k.content_url from shell.chunks as k where k.hash = any (read_chunks.hashes);
end
$$;
comment on function shell.read_chunks(bytea[]) is
  'Chunks, each once; what is missing is not among them. Who reads them checks their hashes.';

create function shell.add_contents(contents json) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  needed bytea[];
  locked bytea[];
begin
  -- In one order, or two workers with the same contents would wait for each other. What is there and old is made young,
  -- or it might be collected before the tree that needs it is there.
  with added as (
    insert into shell.contents as known (hash, size, chunks)
    select distinct on (1) decode(c.hash, 'hex'), c.size, decode(array_to_string(c.chunks, ''), 'hex')
    from json_to_recordset(add_contents.contents) as c (hash text, size bigint, chunks text[]) -- noqa: LT01
    order by 1
    on conflict (hash) do update set added_at = now() where known.added_at < now() - interval '10 minutes'
    returning known.chunks
  )
  select array_agg(distinct substring(a.chunks from 32 * n + 1 for 32)) into needed
  from added as a
  cross join generate_series(0, octet_length(a.chunks) / 32 - 1) as n;

  -- Nobody collects a chunk that is locked, nor one that a content has.
  locked := array(select k.hash from shell.chunks as k where k.hash = any (needed) order by k.hash for key share);
  if cardinality(locked) < cardinality(needed) then
    raise exception using
      errcode = 'PS030',
      message = format('there is no chunk %s', encode((select n from unnest(needed) as n where n <> all (locked) limit 1), 'hex')),
      hint = 'Store it with shell.add_chunks() first; shell.missing_chunks() says which are missing.';
  end if;
end
$$;
comment on function shell.add_contents(json) is
  'Stores which chunks files consist of: [{"hash": hex, "size": n, "chunks": [hex, …]}, …]. '
  'Raises PS030 where a chunk is not stored.';

create function shell.storage_quota(environment_id uuid) returns shell.storage
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  maximum constant shell.storage := shell.maximum_storage();
  quota shell.storage;
begin
  -- What nobody has limited, null, is passed over by least().
  select least(maximum.session_bytes, s.storage_bytes), least(maximum.user_bytes, u.storage_bytes) into quota
  from shell.environments as e
  join shell.sandboxes as s on s.id = e.sandbox_id
  join shell.users as u on u.id = e.user_id
  where e.id = storage_quota.environment_id;
  return quota;
end
$$;
comment on function shell.storage_quota(uuid) is
  'What the files of a session may have, and all files of its user, in bytes; null is no limit.';

create function shell.make_tree(
  user_id uuid, environment_id uuid, parent_id bigint, command_id bigint, entries json,
  out tree_id bigint, out refusal text
)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  few constant int := 200;
  -- A worker that has none of them at hand lists them in its memory.
  most_entries constant int := 1000000;
  parent shell.trees;
  given shell.fs_entries[];
  before shell.tree_entry[];
  replaced bytea[];
  changes shell.fs_entries[];
  more_entries bigint;
  more_bytes bigint;
  fewer_entries bigint := 0;
  fewer_bytes bigint := 0;
  reshaped bigint;
  unshaped bigint := 0;
  unknown bytea;
  stored bigint;
  new_contents bytea[];
  new_bytes bigint;
  quota shell.storage;
  tree shell.trees;
begin
  given := array(
    select (0, decode(j.path, 'base64'), j.kind, coalesce(j.replaces, false), j.mode, j.mtime_ns, j.size,
      decode(j.content, 'hex'), decode(j.target, 'base64'), j.link, false, null)::shell.fs_entries
    from json_to_recordset(make_tree.entries) as j (
      path text, kind text, mode int, mtime_ns bigint, size bigint, content text, target text, link int,
      replaces boolean));
  if make_tree.parent_id is not null then
    select t.* into parent from shell.trees as t where t.id = make_tree.parent_id;
    if cardinality(given) <= few then
      before := array(select b from shell.find_entries(parent.id, array(select g.path from unnest(given) as g)) as b);
    else
      before := array(
        select b::shell.tree_entry from shell.tree_entries(parent.id) as b
        join unnest(given) as g on g.path = b.path);
    end if;
  end if;

  -- What stood below a folder that is no more, or is a new one, is no longer there, and does not come into it.
  replaced := array(
    select g.path::bytea from unnest(given) as g
    join unnest(before) as b on b.path = g.path and b.kind = 'folder'
    where g.kind <> 'folder' or g.replaces);
  if replaced <> '{}' then
    before := array(
      select b from unnest(before) as b
      where not exists (select from shell.ancestors(b.path) as a (path) where a.path = any (replaced)));
    select count(*), coalesce(sum(b.size), 0),
      coalesce(bit_xor(shell.entry_shape(b.path, b.kind, b.mode, b.content, b.target)), 0)
    into fewer_entries, fewer_bytes, unshaped
    from shell.tree_entries(parent.id) as b
    where exists (select from shell.ancestors(b.path) as a (path) where a.path = any (replaced));
  end if;

  select
    coalesce(array_agg(
      (0, g.path, g.kind, coalesce(b.kind = 'folder' and (g.kind <> 'folder' or g.replaces), false), g.mode, g.mtime_ns,
        g.size, g.content, g.target, g.link_group, false, null)::shell.fs_entries order by g.path), '{}'),
    count(*) filter (where g.kind <> 'gone') - count(b.path),
    coalesce(sum(g.size), 0) - coalesce(sum(b.size), 0),
    coalesce(bit_xor(shell.entry_shape(g.path, g.kind, g.mode, g.content, g.target)) filter (where g.kind <> 'gone'), 0)
      # coalesce(bit_xor(shell.entry_shape(b.path, b.kind, b.mode, b.content, b.target))
        filter (where b.path is not null), 0),
    (array_agg(g.content) filter (
      where g.content is not null
        and g.size is distinct from (select known.size from shell.contents as known where known.hash = g.content)))[1]
  into changes, more_entries, more_bytes, reshaped, unknown
  from unnest(given) as g
  left join unnest(before) as b on b.path = g.path
  where not (g.kind = 'gone' and b.path is null)
    and not (
      not g.replaces and g.link_group is null and b.link is null
      and (g.kind, g.mode, g.mtime_ns, g.size, g.content, g.target)
        is not distinct from (b.kind, b.mode, b.mtime_ns, b.size, b.content, b.target));
  if changes = '{}' then
    tree_id := make_tree.parent_id;
    return;
  end if;

  if unknown is not null then
    raise exception using
      errcode = 'PS030',
      message = format('there is no content %s of this size', encode(unknown, 'hex')),
      hint = 'Give it among the contents, with its chunks.';
  end if;

  tree.entries := coalesce(parent.entries, 0) + more_entries - fewer_entries;
  tree.bytes := coalesce(parent.bytes, 0) + more_bytes - fewer_bytes;
  tree.changes := cardinality(changes);

  if tree.entries > most_entries and tree.entries > coalesce(parent.entries, 0) then
    refusal := format(
      'The session would have %s files, folders and links; %s are allowed.', tree.entries, most_entries);
    return;
  end if;
  quota := shell.storage_quota(make_tree.environment_id);
  if tree.bytes > quota.session_bytes and tree.bytes > coalesce(parent.bytes, 0) then
    refusal := format(
      'The session''s files would have %s bytes; %s are allowed.', tree.bytes, quota.session_bytes);
    return;
  end if;
  if exists (select from unnest(changes) as c where c.content is not null) then
    -- One tree of a user at a time, and none while shell.release_contents counts less: what is counted stays right.
    select u.bytes into stored from shell.user_storage as u where u.user_id = make_tree.user_id for no key update;
    if not found then
      insert into shell.user_storage (user_id, bytes) values (make_tree.user_id, 0) on conflict do nothing;
      select u.bytes into stored from shell.user_storage as u where u.user_id = make_tree.user_id for no key update;
    end if;
    with added as (
      insert into shell.user_contents (user_id, content, size)
      select distinct on (c.content) make_tree.user_id, c.content, c.size
      from unnest(changes) as c
      where c.content is not null
      order by c.content
      on conflict do nothing
      returning content, size
    )
    select array_agg(a.content), coalesce(sum(a.size), 0) into new_contents, new_bytes from added as a;
    if new_bytes > 0 and stored + new_bytes > quota.user_bytes then
      delete from shell.user_contents as u where u.user_id = make_tree.user_id and u.content = any (new_contents);
      refusal := format(
        'All files of the user would have %s bytes, each content once; %s are allowed.',
        stored + new_bytes, quota.user_bytes);
      return;
    end if;
    update shell.user_storage as u set bytes = stored + new_bytes where u.user_id = make_tree.user_id and new_bytes > 0;
  end if;

  -- Read through merged changes where there are some, see shell.merge_trees.
  tree.depth := coalesce(parent.depth, 0) + 1;
  tree.rows_read := coalesce(parent.rows_read, 0) + tree.changes;
  tree.user_id := make_tree.user_id;
  tree.command_id := make_tree.command_id;
  tree.shape := coalesce(parent.shape, 0) # reshaped # unshaped;
  insert into shell.trees (user_id, parent_id, command_id, hash, shape, entries, bytes, changes, depth, rows_read)
  values (tree.user_id, make_tree.parent_id, tree.command_id,
    shell.tree_hash(parent.hash, tree, shell.changes_hash(changes)), tree.shape,
    tree.entries, tree.bytes, tree.changes, tree.depth, tree.rows_read)
  returning trees.id into make_tree.tree_id;

  insert into shell.fs_entries
    (tree_id, path, kind, replaces, mode, mtime_ns, size, content, target, link_group)
  select make_tree.tree_id, c.path, c.kind, c.replaces, c.mode, c.mtime_ns, c.size, c.content, c.target, c.link_group
  from unnest(changes) as c;
end
$$;
comment on function shell.make_tree(uuid, uuid, bigint, bigint, json) is
  'Stores a tree of these changes against its parent, whose contents are stored, and returns its id; the parent''s where '
  'nothing changes; null and why, where a quota is exceeded. Raises PS030 where a content is not stored.';

create function shell.add_tree(
  worker_id bigint, command_id bigint, attempt int, entries json, contents json default null,
  chunk_hashes bytea[] default null, chunk_bytes bytea[] default null,
  out tree_id bigint, out refusal text
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  held record;
begin
  -- What nobody comes to refer to is collected: until its command has ended, a lost tree is no loss.
  set local synchronous_commit = off;
  select c.user_id, c.environment_id, c.tree_id into held
  from shell.commands as c
  where c.id = add_tree.command_id
    and (c.status, c.worker_id, c.attempt) is not distinct from ('running', add_tree.worker_id, add_tree.attempt);
  if not found then
    raise exception using
      errcode = 'PS033',
      message = format('worker %s no longer holds command %s', add_tree.worker_id, add_tree.command_id),
      hint = 'It was given to another worker, or has ended. Nothing was stored.';
  end if;
  if add_tree.chunk_hashes <> '{}' then
    perform shell.add_chunks(add_tree.chunk_hashes, add_tree.chunk_bytes, null);
  end if;
  if add_tree.contents is not null then
    perform shell.add_contents(add_tree.contents);
  end if;
  -- Where commands come quickly, upkeep would come when this one has read through hundreds of changes.
  if exists (
    select from shell.trees as t where t.id = held.tree_id and t.depth > 32 and t.rows_read <= 256 + 3 * t.entries
  ) and pg_try_advisory_xact_lock(hashtextextended('pg_shell upkeep', 0)) then
    perform shell.quicken_tree(held.tree_id);
  end if;
  select m.tree_id, m.refusal into add_tree.tree_id, add_tree.refusal
  from shell.make_tree(
    held.user_id, held.environment_id, held.tree_id, add_tree.command_id, add_tree.entries) as m;
end
$$;
comment on function shell.add_tree(bigint, bigint, int, json, json, bytea[], bytea[]) is
  'Stores the files that a running command leaves, for shell.work to name: tree_id, the same as before where nothing has '
  'changed; or refusal, where a quota is exceeded. Raises PS033 without the lease, PS030 where a chunk is not stored.';
