-- What nobody wants kept is removed, and what nothing refers to is collected.

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

select pg_catalog.pg_extension_config_dump('shell.retention_policies', '');
select pg_catalog.pg_extension_config_dump('shell.retention_policies_id_seq', '');
select pg_catalog.pg_extension_config_dump('shell.removed_versions', '');

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
  locked := array(
    select k.hash from shell.chunks as k
    where k.hash = any (collect_chunks.hashes) and k.added_at < now() - interval '1 hour'
    order by k.hash
    for update skip locked);
  with removed as (
    delete from shell.chunks as k
    where k.hash = any (locked)
      and not exists (select from shell.contents as c where c.hash = k.hash and c.chunks = k.hash)
      and not exists (
        select from shell.contents as c
        where octet_length(c.chunks) > 32 and shell.split_hashes(c.chunks) @> array[k.hash::bytea])
    returning k.content_url
  ),
  unnamed as (
    insert into shell.unnamed_objects (url)
    select distinct r.content_url from removed as r where r.content_url is not null
    on conflict (url) do nothing
  )
  select count(*) into collected from removed as r;
  return collected;
end
$$;
comment on function shell.collect_chunks(bytea[]) is
  'Removes those of these chunks that no file has for an hour; returns how many. What is kept outside is a worker''s to '
  'remove.';

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
  -- What a command waits to write is young until it does not wait any more, or nobody would look at it again.
  update shell.contents as c set added_at = now()
  where c.hash = any (locked) and exists (
    select from shell.commands as p where p.status = 'pending' and p.action ->> 'sha256' = encode(c.hash, 'hex'));
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
  candidate bigint;
begin
  -- The newest first: its parent may be nobody's then.
  foreach candidate in array array(select distinct i from unnest(collect_trees.ids) as i order by i desc) loop
    perform from shell.trees as t where t.id = candidate for update skip locked;
    if found and not shell.tree_is_named(candidate)
      and not exists (select from shell.trees as t where t.parent_id = candidate or t.base_id = candidate)
    then
      perform shell.remove_trees(array[candidate]);
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
  owner uuid;
  next_id bigint;
  listing shell.fs_entries[];
  first record;
  kept bigint;
begin
  select t.user_id into owner from shell.trees as t where t.id = prune_above.tree_id;
  -- In the order in which shell.make_tree locks.
  perform from shell.user_storage as u where u.user_id = owner for no key update;
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
    select (prune_above.tree_id, m.path, m.kind, m.replaces, m.mode, m.mtime_ns, m.size, known.content, m.target,
      case when m.link is not null then dense_rank() over (order by m.link) end,
      m.changed_in is distinct from prune_above.tree_id,
      case when known.content is null then m.content end)::shell.fs_entries
    from shell.merged_changes(run, array_fill(false, array[cardinality(run)]), kept is null) as m
    -- What was removed for this user may be there for another, and does not come back.
    left join shell.user_contents as known on known.user_id = owner and known.content = m.content);
  -- What was merged against one that goes is to be merged anew.
  delete from shell.checkpoints as c
  where c.tree_id in (select t.id from shell.trees as t where t.id = any (run) or t.base_id = any (run));
  update shell.trees as t set merged = false, base_id = null, depth = 65
  where t.base_id = any (run) or (t.id = any (run) and t.merged);
  select p.hash as parent_hash,
    shell.changes_hash(array(select e from shell.fs_entries as e where e.tree_id = prune_above.tree_id)) as changes_hash
  into first
  from shell.trees as p where p.id = run[2];
  delete from shell.fs_entries as e where e.tree_id = prune_above.tree_id;
  insert into shell.fs_entries select l.* from unnest(listing) as l;
  update shell.trees as t
  set parent_id = kept, changes = cardinality(listing), listing_hash = shell.changes_hash(listing),
      first_parent_hash = case when t.listing_hash is null then first.parent_hash else t.first_parent_hash end,
      first_changes_hash = coalesce(t.first_changes_hash, first.changes_hash),
      first_changes = coalesce(t.first_changes, t.changes),
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
      from (
        -- A snapshot that was brought back is a tree that a command before it left.
        select c.tree_after, min(c.id) as id from shell.commands as c
        where c.environment_id = session.id and c.tree_after is not null
        group by c.tree_after
      ) as c
      join shell.fs_entries as e on e.tree_id = c.tree_after and e.kind = 'file'
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
      -- From there up to the beginning, past what snapshots and forks have.
      while oldest is not null loop
        perform shell.prune_above(oldest);
        select t.parent_id into oldest from shell.trees as t where t.id = oldest;
      end loop;
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
