-- What workers do now and then, a little at a time.

create table shell.upkeep_state (
  singular boolean primary key default true,
  trees_seen bigint not null default 0,
  contents_seen timestamptz not null default '-infinity',
  contents_seen_hash bytea not null default '',
  chunks_seen timestamptz not null default '-infinity',
  chunks_seen_hash bytea not null default '',
  session_seen uuid,
  round_began timestamptz not null default '-infinity',

  constraint one_row check (singular)
);
comment on table shell.upkeep_state is 'How far upkeep has come; one row, or none before the first time.';
comment on column shell.upkeep_state.singular is 'True.';
comment on column shell.upkeep_state.trees_seen is 'Trees up to this id have been asked whether anything refers to them.';
comment on column shell.upkeep_state.contents_seen is 'Contents up to this age have been.';
comment on column shell.upkeep_state.contents_seen_hash is 'And of those of just this age, those up to this hash.';
comment on column shell.upkeep_state.chunks_seen is 'Chunks up to this age have been.';
comment on column shell.upkeep_state.chunks_seen_hash is 'And of those of just this age, those up to this hash.';
comment on column shell.upkeep_state.session_seen is 'Retention has come to this session; null between two rounds.';
comment on column shell.upkeep_state.round_began is 'When retention last began with the first session; once an hour.';
select pg_catalog.pg_extension_config_dump('shell.upkeep_state', '');

create function shell.upkeep(at_most int default 20) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  state shell.upkeep_state;
  before shell.upkeep_state;
  young constant timestamptz := now() - interval '1 hour';
  -- It is done between two signs of life.
  until constant timestamptz := clock_timestamp() + interval '0.3 seconds';
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
    where t.depth > 32 or t.rows_read > 256 + 3 * t.entries
    order by t.id
    limit at_most
  loop
    perform shell.quicken_tree(tree);
    done := done + 1;
    exit when clock_timestamp() > until;
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

  -- Thousands may have been stored in one moment: by age, and by hash.
  select array_agg(c.hash::bytea order by c.added_at, c.hash) as hashes, max(c.added_at) as last into seen
  from (
    select c.hash, c.added_at from shell.contents as c
    where (c.added_at, c.hash) > (state.contents_seen, state.contents_seen_hash) and c.added_at < young
    order by c.added_at, c.hash
    limit at_most * 10
  ) as c;
  if seen.last is not null then
    perform shell.collect_contents(seen.hashes);
    state.contents_seen := seen.last;
    state.contents_seen_hash := seen.hashes[cardinality(seen.hashes)];
    done := done + 1;
  end if;

  select array_agg(k.hash::bytea order by k.added_at, k.hash) as hashes, max(k.added_at) as last into seen
  from (
    select k.hash, k.added_at from shell.chunks as k
    where (k.added_at, k.hash) > (state.chunks_seen, state.chunks_seen_hash) and k.added_at < young
    order by k.added_at, k.hash
    limit at_most * 10
  ) as k;
  if seen.last is not null then
    perform shell.collect_chunks(seen.hashes);
    state.chunks_seen := seen.last;
    state.chunks_seen_hash := seen.hashes[cardinality(seen.hashes)];
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
      exit when state.session_seen < session or clock_timestamp() > until;
    end loop;
    if session is null then
      state.session_seen := null;
    end if;
  end if;

  if state is distinct from before then
    update shell.upkeep_state as s
    set trees_seen = state.trees_seen, contents_seen = state.contents_seen,
        contents_seen_hash = state.contents_seen_hash, chunks_seen = state.chunks_seen,
        chunks_seen_hash = state.chunks_seen_hash,
        session_seen = state.session_seen, round_began = state.round_began;
  end if;
  return done;
end
$$;
comment on function shell.upkeep(int) is
  'A little of what workers do now and then, by one of them at a time: merges changes, removes what retention does not '
  'keep, collects what nothing refers to. Returns how much there was; 0 is all done.';

create function shell.give_up_objects(store text, at_most int default 1000) returns setof text
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  update shell.unnamed_objects as u set given_up_at = now()
  where u.url in (
    select o.url from shell.unnamed_objects as o
    where o.since < now() - interval '1 hour'
      -- Some other worker may be at it, or have died of it.
      and coalesce(o.given_up_at < now() - interval '10 minutes', true)
      and starts_with(o.url, give_up_objects.store)
      and substr(o.url, length(give_up_objects.store) + 1) ~ '^[0-9a-f]{2}/[0-9a-f]{64}-[0-9a-f]{32}$'
      -- As where a row was brought back from a backup.
      and not exists (select from shell.chunks as k where k.content_url = o.url)
    order by o.since
    limit give_up_objects.at_most
    for update skip locked)
  returning u.url
$$;
comment on function shell.give_up_objects(text, int) is
  'Objects of a store, named by what all its addresses begin with, that are no chunk''s for an hour: to be removed, and '
  'then forgotten with shell.forget_objects(). No chunk will ever name them.';

create function shell.forget_objects(urls text[]) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
  delete from shell.unnamed_objects as u where u.url = any (forget_objects.urls) and u.given_up_at is not null
$$;
comment on function shell.forget_objects(text[]) is 'Says that objects which were given up are removed.';
