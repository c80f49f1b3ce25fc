-- What workers do now and then, a little at a time: make long histories quick to read, remove what nobody wants kept,
-- and collect what nothing refers to.

create table shell.retention_policies (
  id bigint generated always as identity primary key,
  user_id uuid references shell.users (id),
  environment_id uuid references shell.environments (id),
  keep_days int,
  keep_versions int,
  set_at timestamptz not null default clock_timestamp(),

  constraint keep_days_is_positive check (keep_days > 0),
  constraint keep_versions_is_positive check (keep_versions > 0),
  constraint a_policy_says_something check (keep_days is not null or keep_versions is not null),
  constraint a_session_s_policy_is_its_user_s check (environment_id is null or user_id is not null)
);
comment on table shell.retention_policies is
  'What may be removed: of a session, else of its user''s sessions, else of everybody''s. Without a row all is kept. '
  'The files that a session has now, and those of snapshots, are kept whatever it says.';
comment on column shell.retention_policies.id is 'For rows of other tables.';
comment on column shell.retention_policies.user_id is 'Whose sessions; null is everybody''s who has no policy.';
comment on column shell.retention_policies.environment_id is 'The one session; null is all of the user''s.';
comment on column shell.retention_policies.keep_days is
  'Commands that ended longer ago are removed, and the files that only they had; null keeps them.';
comment on column shell.retention_policies.keep_versions is
  'Of each file''s versions in a session so many newest are kept; null keeps all.';
comment on column shell.retention_policies.set_at is 'When it was last set.';
create unique index retention_policies_one_each on shell.retention_policies (
  coalesce(user_id, '00000000-0000-0000-0000-000000000000'),
  coalesce(environment_id, '00000000-0000-0000-0000-000000000000')
);

-- No foreign keys: what it tells of may go, too.
create table shell.removed_versions (
  tree_id bigint not null,
  path bytea not null,
  environment_id uuid not null,
  user_id uuid not null,
  command_id bigint not null,
  content shell.sha256 not null,
  size bigint not null,
  removed_at timestamptz not null default clock_timestamp(),
  reason text not null
);
comment on table shell.removed_versions is 'Versions of files whose content retention removed.';
comment on column shell.removed_versions.tree_id is 'The tree that had it.';
comment on column shell.removed_versions.path is 'The file.';
comment on column shell.removed_versions.environment_id is 'The session that it was of.';
comment on column shell.removed_versions.user_id is 'Whose it was.';
comment on column shell.removed_versions.command_id is 'The command that had written it.';
comment on column shell.removed_versions.content is 'SHA-256 of what it held.';
comment on column shell.removed_versions.size is 'Its bytes.';
comment on column shell.removed_versions.removed_at is 'When it was removed.';
comment on column shell.removed_versions.reason is 'By which policy.';
create index removed_versions_of_content on shell.removed_versions (content);
create index removed_versions_of_session on shell.removed_versions (environment_id, removed_at);

create table shell.upkeep_state (
  singular boolean primary key default true,
  trees_seen bigint not null default 0,
  contents_seen timestamptz not null default '-infinity',
  chunks_seen timestamptz not null default '-infinity',
  session_seen uuid,
  round_began timestamptz not null default '-infinity',

  constraint one_row check (singular)
);
comment on table shell.upkeep_state is 'How far upkeep has come; one row, or none before the first time.';
comment on column shell.upkeep_state.singular is 'True.';
comment on column shell.upkeep_state.trees_seen is 'Trees up to this id have been asked whether anything refers to them.';
comment on column shell.upkeep_state.contents_seen is 'Contents up to this age have been.';
comment on column shell.upkeep_state.chunks_seen is 'Chunks up to this age have been.';
comment on column shell.upkeep_state.session_seen is 'Retention has come to this session; null between two rounds.';
comment on column shell.upkeep_state.round_began is 'When retention last began with the first session; once an hour.';

select pg_catalog.pg_extension_config_dump('shell.retention_policies', '');
select pg_catalog.pg_extension_config_dump('shell.retention_policies_id_seq', '');
select pg_catalog.pg_extension_config_dump('shell.removed_versions', '');
select pg_catalog.pg_extension_config_dump('shell.upkeep_state', '');

-- Reading.

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
      select n.path
      from newest as n
      cross join shell.ancestors(n.path) as a (path)
      join replacing as h on h.path = a.path and h.number < n.number
      where (select exists (select from replacing))
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
  at_once constant int := 32;
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
return (tree).depth > 64 or (tree).rows_read > 256 + 3 * (tree).entries;
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
      slow_parent := tree.depth > 64;
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

-- Collecting. What is to go is locked, and then looked at again: who came to refer to it before the lock is seen then,
-- who comes after it waits, and finds it gone.

create function shell.collect_chunks(hashes bytea[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked bytea[];
  collected bigint;
begin
  -- What is kept elsewhere stays: nobody is here who could remove it there.
  locked := array(
    select k.hash from shell.chunks as k
    where k.hash = any (collect_chunks.hashes) and k.added_at < now() - interval '1 hour' and k.content_url is null
    order by k.hash
    for update skip locked);
  delete from shell.chunks as k
  where k.hash = any (locked)
    and not exists (select from shell.contents as c where c.hash = k.hash and c.chunks = k.hash)
    and not exists (
      select from shell.contents as c
      where octet_length(c.chunks) > 32 and shell.split_hashes(c.chunks) @> array[k.hash::bytea]);
  get diagnostics collected = row_count;
  return collected;
end
$$;
comment on function shell.collect_chunks(bytea[]) is 'Removes those of these chunks that no file has for an hour; returns how many.';

create function shell.collect_contents(hashes bytea[]) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked bytea[];
  gone bytea[];
begin
  locked := array(
    select c.hash from shell.contents as c
    where c.hash = any (collect_contents.hashes) and c.added_at < now() - interval '1 hour'
    order by c.hash
    for update skip locked);
  with removed as (
    delete from shell.contents as c
    where c.hash = any (locked)
      and not exists (select from shell.fs_entries as e where e.content = c.hash)
      and not exists (select from shell.user_contents as u where u.content = c.hash)
      and not exists (
        select from shell.commands as p where p.status = 'pending' and p.action ->> 'sha256' = encode(c.hash, 'hex'))
    returning c.chunks
  )
  select array_agg(distinct h) into gone from removed as r cross join shell.split_hashes(r.chunks) as s (hashes)
  cross join unnest(s.hashes) as h;
  perform shell.collect_chunks(gone);
  return cardinality(locked);
end
$$;
comment on function shell.collect_contents(bytea[]) is
  'Removes those of these contents that no tree has for an hour, with the chunks that only they had.';

create function shell.release_contents(user_id uuid, contents bytea[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nobody adds to what the user has meanwhile.
  perform from shell.user_storage as u where u.user_id = release_contents.user_id for no key update;
  with released as (
    delete from shell.user_contents as u
    where u.user_id = release_contents.user_id and u.content = any (release_contents.contents)
      and not exists (
        select from shell.fs_entries as e
        join shell.trees as t on t.id = e.tree_id
        where e.content = u.content and t.user_id = u.user_id)
    returning u.size
  )
  update shell.user_storage as u set bytes = u.bytes - (select coalesce(sum(r.size), 0) from released as r)
  where u.user_id = release_contents.user_id;
  perform shell.collect_contents(release_contents.contents);
end
$$;
comment on function shell.release_contents(uuid, bytea[]) is
  'Counts those of these contents no longer that none of the user''s trees has, and collects them.';

create function shell.tree_is_named(tree_id bigint) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from shell.environments as e where e.tree_id = tree_is_named.tree_id)
    or exists (select from shell.snapshots as s where s.tree_id = tree_is_named.tree_id)
    or exists (select from shell.commands as c where c.tree_id = tree_is_named.tree_id)
    or exists (select from shell.commands as c where c.tree_after = tree_is_named.tree_id)
    or exists (
      select from shell.commands as c
      where c.status = 'pending' and (c.action ->> 'tree_id')::bigint = tree_is_named.tree_id);
end
$$;
comment on function shell.tree_is_named(bigint) is 'Whether a session, a snapshot or a command has this tree.';

create function shell.remove_trees(ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  owner uuid;
  contents bytea[];
begin
  perform from shell.trees as t where t.id = any (remove_trees.ids) order by t.id for update;
  select t.user_id into owner from shell.trees as t where t.id = any (remove_trees.ids) limit 1;
  contents := array(
    select distinct e.content from shell.fs_entries as e
    where e.tree_id = any (remove_trees.ids) and e.content is not null);
  delete from shell.checkpoints as c where c.tree_id = any (remove_trees.ids);
  delete from shell.fs_entries as e where e.tree_id = any (remove_trees.ids);
  delete from shell.trees as t where t.id = any (remove_trees.ids);
  perform shell.release_contents(owner, contents);
end
$$;
comment on function shell.remove_trees(bigint[]) is 'Removes trees of one user, and what only they had.';

create function shell.collect_trees(ids bigint[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  id bigint;
begin
  -- The newest first: its parent may be nobody's then.
  foreach id in array array(select distinct i from unnest(collect_trees.ids) as i order by i desc) loop
    perform from shell.trees as t where t.id = collect_trees.id for update skip locked;
    if found and not shell.tree_is_named(id)
      and not exists (select from shell.trees as t where t.parent_id = collect_trees.id or t.base_id = collect_trees.id)
    then
      perform shell.remove_trees(array[id]);
    end if;
  end loop;
end
$$;
comment on function shell.collect_trees(bigint[]) is 'Removes those of these trees that nothing refers to.';

-- Retention.

create function shell.prune_above(tree_id bigint) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run bigint[] := array[prune_above.tree_id];
  next_id bigint;
  listing shell.fs_entries[];
  kept bigint;
begin
  perform from shell.trees as t where t.id = prune_above.tree_id for update;
  loop
    select t.parent_id into next_id from shell.trees as t where t.id = run[cardinality(run)];
    exit when next_id is null;
    perform from shell.trees as t where t.id = next_id for update;
    exit when shell.tree_is_named(next_id)
      or (select count(*) > 1 from shell.trees as t where t.parent_id = next_id);
    run := run || next_id;
  end loop;
  kept := next_id;
  if cardinality(run) = 1 then
    return 0;
  end if;

  listing := array(
    select (prune_above.tree_id, m.path, m.kind, m.replaces, m.mode, m.mtime_ns, m.size, known.hash, m.target,
      case when m.link is not null then dense_rank() over (order by m.link) end,
      m.changed_in is distinct from prune_above.tree_id,
      case when known.hash is null then m.content end)::shell.fs_entries
    from shell.merged_changes(run, array_fill(false, array[cardinality(run)]), kept is null) as m
    left join shell.contents as known on known.hash = m.content);
  -- What was merged against one that goes is to be merged anew.
  delete from shell.checkpoints as c
  where c.tree_id in (select t.id from shell.trees as t where t.id = any (run) or t.base_id = any (run));
  update shell.trees as t set merged = false, base_id = null, depth = 65
  where t.base_id = any (run) or (t.id = any (run) and t.merged);
  delete from shell.fs_entries as e where e.tree_id = prune_above.tree_id;
  insert into shell.fs_entries select l.* from unnest(listing) as l;
  update shell.trees as t
  set parent_id = kept, changes = cardinality(listing), listing_hash = shell.changes_hash(listing),
      depth = coalesce((select k.depth from shell.trees as k where k.id = kept), 0) + 1,
      rows_read = coalesce((select k.rows_read from shell.trees as k where k.id = kept), 0) + cardinality(listing)
  where t.id = prune_above.tree_id;
  perform shell.remove_trees(run[2:]);
  return cardinality(run) - 1;
end
$$;
comment on function shell.prune_above(bigint) is
  'Takes into a tree what its ancestors changed, as far up as nothing else refers to them, and removes them.';

create function shell.remove_commands(environment_id uuid, keep_days int, at_most int) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  chosen bigint[];
  trees bigint[];
begin
  -- The oldest, up to the first that is to stay.
  chosen := array(
    select o.id
    from (
      select c.id,
        bool_and(c.finished_at is not null and c.finished_at < now() - make_interval(days => keep_days))
          over (order by c.id) as is_old
      from (
        select c.id, c.finished_at from shell.commands as c
        where c.environment_id = remove_commands.environment_id
        order by c.id
        limit at_most
      ) as c
    ) as o
    where o.is_old);
  if chosen = '{}' then
    return 0;
  end if;
  insert into shell.removed_commands (environment_id, command_id, user_id, ran, hash, finished_at, reason)
  select c.environment_id, c.id, c.user_id, c.attempt > 0, c.hash, c.finished_at, format('keep_days = %s', keep_days)
  from shell.commands as c where c.id = any (chosen);
  with removed as (
    delete from shell.commands as c where c.id = any (chosen) returning c.tree_id, c.tree_after
  )
  select array_agg(t.id) into trees
  from removed as r cross join lateral (values (r.tree_id), (r.tree_after)) as t (id)
  where t.id is not null;
  perform shell.collect_trees(coalesce(trees, '{}'));
  return cardinality(chosen);
end
$$;
comment on function shell.remove_commands(uuid, int, int) is
  'Removes the oldest commands of a session that ended so many days ago, and says so in shell.removed_commands.';

create function shell.remove_versions(environment_id uuid, keep_versions int, at_most int) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  session shell.environments;
  chosen shell.removed_versions[];
  living record;
begin
  select e.* into session from shell.environments as e where e.id = remove_versions.environment_id;
  chosen := array(
    select (v.tree_id, v.path, session.id, session.user_id, v.command_id, v.content, v.size, clock_timestamp(),
      format('keep_versions = %s', keep_versions))::shell.removed_versions
    from (
      select e.tree_id, e.path, c.id as command_id, e.content, e.size,
        row_number() over (partition by e.path order by e.tree_id desc) as number
      from shell.commands as c
      join shell.fs_entries as e on e.tree_id = c.tree_after and e.kind = 'file'
      where c.environment_id = session.id and c.tree_after is not null
    ) as v
    where v.number > keep_versions and v.content is not null
    -- More than is asked for: some of them are still somebody's.
    limit at_most * 100);
  if chosen = '{}' then
    return 0;
  end if;
  -- Sessions, forks among them, and snapshots keep what they have.
  for living in
    select e.tree_id from shell.environments as e where e.user_id = session.user_id and e.tree_id is not null
    union
    select s.tree_id from shell.snapshots as s where s.user_id = session.user_id and s.tree_id is not null
  loop
    exit when chosen = '{}';
    chosen := array(
      select c from unnest(chosen) as c
      where not exists (
        select from shell.find_entries(living.tree_id, array(select u.path from unnest(chosen) as u)) as f
        where f.path = c.path and f.changed_in = c.tree_id));
  end loop;
  insert into shell.removed_versions select c.* from unnest(chosen) as c;
  update shell.fs_entries as e set removed_content = e.content, content = null
  from unnest(chosen) as c
  where e.tree_id = c.tree_id and shell.path_key(e.path) = shell.path_key(c.path) and e.path = c.path;
  perform shell.release_contents(session.user_id, array(select c.content::bytea from unnest(chosen) as c));
  return cardinality(chosen);
end
$$;
comment on function shell.remove_versions(uuid, int, int) is
  'Removes the content of all but the newest versions of each file, and says so in shell.removed_versions.';

create function shell.apply_retention(environment_id uuid, at_most int) returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  policy shell.retention_policies;
  oldest bigint;
  done int := 0;
begin
  select p.* into policy
  from shell.retention_policies as p
  join shell.environments as e on e.id = apply_retention.environment_id
  where coalesce(p.user_id, e.user_id) = e.user_id and coalesce(p.environment_id, e.id) = e.id
  order by p.environment_id is null, p.user_id is null
  limit 1;
  if not found then
    return 0;
  end if;
  if policy.keep_days is not null then
    done := shell.remove_commands(apply_retention.environment_id, policy.keep_days, at_most);
    if done > 0 then
      select coalesce(
        (select c.tree_id from shell.commands as c
         where c.environment_id = apply_retention.environment_id and c.attempt > 0 order by c.id limit 1),
        (select e.tree_id from shell.environments as e where e.id = apply_retention.environment_id))
      into oldest;
      if oldest is not null then
        perform shell.prune_above(oldest);
      end if;
    end if;
  end if;
  if policy.keep_versions is not null then
    done := done + shell.remove_versions(apply_retention.environment_id, policy.keep_versions, at_most);
  end if;
  return done;
end
$$;
comment on function shell.apply_retention(uuid, int) is
  'Removes from a session what its policy, its user''s or everybody''s does not keep: about so much; returns how much.';

create function shell.set_retention(
  user_id uuid default null, keep_days int default null, keep_versions int default null,
  environment_id uuid default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  nobody constant uuid := '00000000-0000-0000-0000-000000000000';
begin
  if set_retention.user_id is not null then
    perform shell.require_user(set_retention.user_id);
  end if;
  if set_retention.environment_id is not null then
    perform shell.require_session(set_retention.user_id, set_retention.environment_id);
  end if;
  delete from shell.retention_policies as p
  where coalesce(p.user_id, nobody) = coalesce(set_retention.user_id, nobody)
    and coalesce(p.environment_id, nobody) = coalesce(set_retention.environment_id, nobody);
  if coalesce(set_retention.keep_days, set_retention.keep_versions) is not null then
    insert into shell.retention_policies (user_id, environment_id, keep_days, keep_versions)
    values (set_retention.user_id, set_retention.environment_id, set_retention.keep_days, set_retention.keep_versions);
  end if;
end
$$;
comment on function shell.set_retention(uuid, int, int, uuid) is
  'Says what is kept: of a session, of a user''s sessions, or, without a user, of everybody''s that have no policy of '
  'their own. Nothing but whose it is takes the policy away. Raises PS001, PS002, PS003.';

-- All of it.

create function shell.upkeep(at_most int default 20) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  state shell.upkeep_state;
  before shell.upkeep_state;
  young constant timestamptz := now() - interval '1 hour';
  seen record;
  tree bigint;
  session uuid;
  done bigint := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('pg_shell upkeep', 0)) then
    return 0;
  end if;
  select s.* into state from shell.upkeep_state as s;
  if not found then
    insert into shell.upkeep_state default values returning * into state;
  end if;
  before := state;

  for tree in
    select t.id from shell.trees as t
    where t.depth > 64 or t.rows_read > 256 + 3 * t.entries
    order by t.id
    limit at_most
  loop
    perform shell.quicken_tree(tree);
    done := done + 1;
  end loop;

  select array_agg(t.id) as ids, max(t.id) as last into seen
  from (
    select t.id from shell.trees as t
    where t.id > state.trees_seen and t.created_at < young
    order by t.id
    limit at_most * 10
  ) as t;
  if seen.last is not null then
    perform shell.collect_trees(seen.ids);
    state.trees_seen := seen.last;
    done := done + 1;
  end if;

  select array_agg(c.hash::bytea) as hashes, max(c.added_at) as last into seen
  from (
    select c.hash, c.added_at from shell.contents as c
    where c.added_at > state.contents_seen and c.added_at < young
    order by c.added_at
    fetch first (at_most * 10) rows with ties
  ) as c;
  if seen.last is not null then
    perform shell.collect_contents(seen.hashes);
    state.contents_seen := seen.last;
    done := done + 1;
  end if;

  select array_agg(k.hash::bytea) as hashes, max(k.added_at) as last into seen
  from (
    select k.hash, k.added_at from shell.chunks as k
    where k.added_at > state.chunks_seen and k.added_at < young
    order by k.added_at
    fetch first (at_most * 10) rows with ties
  ) as k;
  if seen.last is not null then
    perform shell.collect_chunks(seen.hashes);
    state.chunks_seen := seen.last;
    done := done + 1;
  end if;

  if exists (select from shell.retention_policies)
    and (state.session_seen is not null or state.round_began < young)
  then
    if state.session_seen is null then
      state.round_began := now();
      state.session_seen := '00000000-0000-0000-0000-000000000000';
    end if;
    for session in
      select e.id from shell.environments as e where e.id > state.session_seen order by e.id limit at_most
    loop
      if shell.apply_retention(session, at_most * 10) < at_most * 10 then
        state.session_seen := session;
      end if;
      done := done + 1;
      exit when state.session_seen < session;
    end loop;
    if session is null then
      state.session_seen := null;
    end if;
  end if;

  if state is distinct from before then
    update shell.upkeep_state as s
    set trees_seen = state.trees_seen, contents_seen = state.contents_seen, chunks_seen = state.chunks_seen,
        session_seen = state.session_seen, round_began = state.round_began;
  end if;
  return done;
end
$$;
comment on function shell.upkeep(int) is
  'A little of what workers do now and then, by one of them at a time: merges changes, removes what retention does not '
  'keep, collects what nothing refers to. Returns how much there was; 0 is all done.';
