-- The files of a session: what a commit is in a repository, a tree is here. A file's bytes are kept once, in chunks
-- named by their SHA-256, however many trees hold it. A tree says only what it changes against its parent, so that it
-- costs what was changed, and a fork costs nothing.

create table shell.chunks (
  hash shell.sha256 primary key,
  size int not null,
  bytes bytea,
  content_url text,
  added_at timestamptz not null default now(),

  constraint chunk_size_in_range check (size between 1 and 8388608),
  constraint chunk_is_somewhere check ((bytes is null) <> (content_url is null)),
  constraint chunk_is_what_its_hash_says check (bytes is null or (octet_length(bytes) = size and sha256(bytes) = hash)),
  constraint content_url_fits check (octet_length(content_url) between 1 and 1024)
);
comment on table shell.chunks is 'Pieces of files, each kept once.';
comment on column shell.chunks.hash is 'SHA-256 of its bytes.';
comment on column shell.chunks.size is 'How many bytes it has.';
comment on column shell.chunks.bytes is 'The bytes; null where they are kept elsewhere.';
comment on column shell.chunks.content_url is 'Where else they are kept; null where they are here.';
comment on column shell.chunks.added_at is
  'When it was last stored. What no file has an hour later is collected: its command never ended.';
-- Which chunk an object is.
create index chunks_outside on shell.chunks using hash (content_url) where content_url is not null;
-- The order in which upkeep looks for chunks that no file has.
create index chunks_by_age on shell.chunks (added_at, hash);
-- Whoever claims for the store what an older server lacks has the default compression.
do $$
begin
  alter table shell.chunks alter column bytes set compression lz4;
exception when feature_not_supported then
  null;
end
$$;

-- No object is ever without a row, here before it is written, in shell.chunks from then on, and here again until it is
-- removed. Its address is used once: what is given up here is named by no chunk later, however late its removal comes.
create table shell.unnamed_objects (
  url text primary key,
  since timestamptz not null default now(),
  given_up_at timestamptz,

  constraint url_fits check (octet_length(url) between 1 and 1024)
);
comment on table shell.unnamed_objects is
  'Objects outside the database that are no chunk''s: not yet, or no longer. An hour later a worker removes them.';
comment on column shell.unnamed_objects.url is 'Where the object is, or may be.';
comment on column shell.unnamed_objects.since is 'When it was announced, or its chunk collected.';
comment on column shell.unnamed_objects.given_up_at is 'When a worker last went to remove it; null until then.';
create index unnamed_objects_by_age on shell.unnamed_objects (since);

create function shell.split_hashes(hashes bytea) returns bytea[]
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(substring(hashes from 32 * n + 1 for 32) order by n), '{}')
  from generate_series(0, octet_length(hashes) / 32 - 1) as n
$$;
comment on function shell.split_hashes(bytea) is 'Hashes that stand one after the other, as an array.';

create table shell.contents (
  hash shell.sha256 primary key,
  size bigint not null,
  chunks bytea not null,
  added_at timestamptz not null default now(),

  constraint content_size_in_range check (size >= 0),
  constraint content_is_whole_chunks check (octet_length(chunks) % 32 = 0),
  constraint content_has_chunks check ((size = 0) = (octet_length(chunks) = 0)),
  constraint single_chunk_is_the_content check (octet_length(chunks) <> 32 or chunks = hash)
);
comment on table shell.contents is 'What files hold, each kept once.';
comment on column shell.contents.hash is 'SHA-256 of all of its bytes.';
comment on column shell.contents.size is 'How many bytes it has.';
comment on column shell.contents.chunks is 'The hashes of its chunks in order, 32 bytes each.';
comment on column shell.contents.added_at is 'When it was first stored.';
-- The order in which upkeep looks for contents that no file has.
create index contents_by_age on shell.contents (added_at, hash);
-- Which files have a chunk. One that is a file of its own has that file's hash, and needs no index.
create index contents_with_chunk on shell.contents using gin (shell.split_hashes(chunks))
where octet_length(chunks) > 32;

create table shell.trees (
  id bigint generated always as identity primary key,
  user_id uuid not null references shell.users (id),
  parent_id bigint references shell.trees (id),
  command_id bigint not null,
  hash shell.sha256 not null,
  shape bigint not null,
  entries bigint not null,
  bytes bigint not null,
  changes int not null,
  depth int not null,
  rows_read bigint not null,
  merged boolean not null default false,
  base_id bigint references shell.trees (id),
  listing_hash shell.sha256,
  first_parent_hash shell.sha256,
  first_changes_hash shell.sha256,
  first_changes int,
  created_at timestamptz not null default now(),

  constraint tree_has_counts check (entries >= 0 and bytes >= 0 and changes >= 0 and depth >= 1 and rows_read >= 0),
  constraint tree_is_newer_than_its_parent check (parent_id < id and base_id < id),
  constraint base_is_of_a_merged_tree check (merged or base_id is null)
);
comment on table shell.trees is
  'Every state in which a session''s files were left. What a tree changes against its parent is in shell.fs_entries.';
comment on column shell.trees.id is 'What sessions and commands name it by; greater than its parent''s.';
comment on column shell.trees.user_id is 'Whose it is, and all that descend from it.';
comment on column shell.trees.parent_id is 'The tree that it was made from; null where that was an empty home folder.';
comment on column shell.trees.command_id is
  'The command that made it. No foreign key: retention may remove the command.';
comment on column shell.trees.hash is 'SHA-256 of the parent''s hash, of this row and of the changes, by shell.tree_hash.';
comment on column shell.trees.shape is
  'The same number for trees with the same paths, permissions and contents, whatever their times: shell.entry_shape.';
comment on column shell.trees.entries is 'Files, folders and links in the whole tree.';
comment on column shell.trees.bytes is 'Sizes of all files in the whole tree together; each hard link counts.';
comment on column shell.trees.changes is 'Rows that it has in shell.fs_entries.';
comment on column shell.trees.depth is 'About how many sets of changes are read for the whole tree.';
comment on column shell.trees.rows_read is 'About how many rows are read for the whole tree.';
comment on column shell.trees.merged is 'Whether its changes and its ancestors'' stand together in shell.checkpoints.';
comment on column shell.trees.base_id is
  'The tree against which its rows in shell.checkpoints are; null where they are all there is.';
comment on column shell.trees.listing_hash is
  'Where retention removed trees between this one and its parent: SHA-256 of its rows in shell.fs_entries, which then '
  'stand for the changes of all of these.';
comment on column shell.trees.first_parent_hash is
  'Of a tree with a listing: the hash of the parent that it had, null for none, so that its own hash can be checked still.';
comment on column shell.trees.first_changes_hash is 'Of a tree with a listing: shell.changes_hash of what it changed.';
comment on column shell.trees.first_changes is 'Of a tree with a listing: how many changes these were.';
comment on column shell.trees.created_at is 'When it was made.';
create index trees_of_parent on shell.trees (parent_id) where parent_id is not null;
create index trees_of_base on shell.trees (base_id) where base_id is not null;
create index trees_of_user on shell.trees (user_id, id);
-- What upkeep makes quicker to read; rows leave this when it has.
create index trees_to_merge on shell.trees (id) where depth > 32 or rows_read > 256 + 3 * entries;

alter table shell.environments add constraint environments_tree_id_fkey
  foreign key (tree_id) references shell.trees (id);
create index environments_with_tree on shell.environments (tree_id) where tree_id is not null;

-- Paths may be longer than what an index takes. No path is as long as a shortened one.
-- Not strict: it would not be inlined.
create function shell.path_key(path bytea) returns bytea
language sql immutable parallel safe
return case when octet_length(path) < 2000 then path else substring(path from 1 for 1968) || sha256(path) end;
comment on function shell.path_key(bytea) is 'A path as an index has it: one a path, in their order up to 1968 bytes.';

create table shell.fs_entries (
  tree_id bigint not null references shell.trees (id),
  path shell.relative_path not null,
  kind text not null,
  replaces boolean not null default false,
  mode int,
  mtime_ns bigint,
  size bigint,
  content shell.sha256 references shell.contents (hash),
  target bytea,
  link_group int,
  inherited boolean not null default false,
  removed_content shell.sha256,

  constraint entry_kind_enum check (kind in ('file', 'folder', 'symlink', 'gone')),
  constraint mode_is_permissions check (mode between 0 and 1023),
  constraint gone_says_nothing_else check (
    kind <> 'gone' or coalesce(mode, mtime_ns, size, link_group) is null
  ),
  constraint entry_has_time check ((kind = 'gone') = (mtime_ns is null)),
  constraint entry_has_mode check ((kind in ('file', 'folder')) = (mode is not null)),
  constraint file_has_content check (
    num_nonnulls(content, removed_content) = (kind = 'file')::int and (kind = 'file') = (size is not null)
  ),
  constraint symlink_has_target check ((kind = 'symlink') = (target is not null)),
  constraint target_is_a_path check (
    octet_length(target) between 1 and 4095 and position('\x00'::bytea in target) = 0
  ),
  constraint links_are_files check (link_group is null or (kind = 'file' and link_group between 1 and 16777215))
);
comment on table shell.fs_entries is 'What each tree changes against its parent.';
comment on column shell.fs_entries.tree_id is 'The tree.';
comment on column shell.fs_entries.path is 'Below the home folder, as bytes.';
comment on column shell.fs_entries.kind is 'file, folder, symlink; or gone, which takes away what was there.';
comment on column shell.fs_entries.replaces is 'True where a folder was there: what older trees have below is hidden.';
comment on column shell.fs_entries.mode is 'Permissions and the sticky bit; a symlink has none.';
comment on column shell.fs_entries.mtime_ns is 'When it was last modified, in nanoseconds since 1970.';
comment on column shell.fs_entries.size is 'Bytes of a file.';
comment on column shell.fs_entries.content is 'What a file holds.';
comment on column shell.fs_entries.target is 'Where a symlink points, as bytes; nothing follows it here.';
comment on column shell.fs_entries.link_group is
  'Files of one tree with the same number are hard links of each other.';
comment on column shell.fs_entries.inherited is 'True where a tree made the change that retention has removed since.';
comment on column shell.fs_entries.removed_content is
  'What the file held, in place of content, where retention has removed it: no foreign key.';
create unique index fs_entries_of_tree on shell.fs_entries (tree_id, shell.path_key(path));
create index fs_entries_replacing on shell.fs_entries (tree_id) where replaces;
create index fs_entries_with_content on shell.fs_entries (content) where content is not null;

-- Made from fs_entries and never needed but for speed: no constraints, no foreign key but to what it is about.
create table shell.checkpoints (
  tree_id bigint not null references shell.trees (id),
  path bytea not null,
  kind text not null,
  replaces boolean not null,
  mode int,
  mtime_ns bigint,
  size bigint,
  content bytea,
  target bytea,
  link bigint,
  changed_in bigint
);
comment on table shell.checkpoints is
  'What some trees change against an older ancestor than their parent, or against nothing: shell.trees.base_id. '
  'Made by upkeep, so that reading a tree takes as long as it is large, however long its history.';
comment on column shell.checkpoints.tree_id is 'The tree.';
comment on column shell.checkpoints.path is 'As in shell.fs_entries.';
comment on column shell.checkpoints.kind is 'As in shell.fs_entries.';
comment on column shell.checkpoints.replaces is 'As in shell.fs_entries.';
comment on column shell.checkpoints.mode is 'As in shell.fs_entries.';
comment on column shell.checkpoints.mtime_ns is 'As in shell.fs_entries.';
comment on column shell.checkpoints.size is 'As in shell.fs_entries.';
comment on column shell.checkpoints.content is 'As in shell.fs_entries.';
comment on column shell.checkpoints.target is 'As in shell.fs_entries.';
comment on column shell.checkpoints.link is 'Equal for hard links of each other.';
comment on column shell.checkpoints.changed_in is
  'The tree whose change of this path it is; null where retention has removed it.';
create unique index checkpoints_of_tree on shell.checkpoints (tree_id, shell.path_key(path));
create index checkpoints_replacing on shell.checkpoints (tree_id) where replaces;

create table shell.user_contents (
  user_id uuid not null references shell.users (id),
  content shell.sha256 not null references shell.contents (hash),
  size bigint not null,

  primary key (user_id, content)
);
comment on table shell.user_contents is 'Which contents any tree of a user has: what the user''s quota counts, each once.';
comment on column shell.user_contents.user_id is 'The user.';
comment on column shell.user_contents.content is 'The content.';
comment on column shell.user_contents.size is 'Its bytes.';
create index user_contents_of_content on shell.user_contents (content);

create table shell.user_storage (
  user_id uuid primary key references shell.users (id),
  bytes bigint not null,

  constraint storage_is_not_negative check (bytes >= 0)
) with (fillfactor = 50);
comment on table shell.user_storage is 'What each user''s distinct contents have together.';
comment on column shell.user_storage.user_id is 'The user.';
comment on column shell.user_storage.bytes is 'The sum of shell.user_contents.size.';

select pg_catalog.pg_extension_config_dump('shell.chunks', '');
select pg_catalog.pg_extension_config_dump('shell.unnamed_objects', '');
select pg_catalog.pg_extension_config_dump('shell.contents', '');
select pg_catalog.pg_extension_config_dump('shell.trees', '');
select pg_catalog.pg_extension_config_dump('shell.fs_entries', '');
select pg_catalog.pg_extension_config_dump('shell.checkpoints', '');
select pg_catalog.pg_extension_config_dump('shell.user_contents', '');
select pg_catalog.pg_extension_config_dump('shell.user_storage', '');
select pg_catalog.pg_extension_config_dump('shell.trees_id_seq', '');
