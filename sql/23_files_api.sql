-- Files, for requests. Each runs as its owner, whom no policy binds, and asks first whether the request may see what it
-- names; whoever sees a session sees its files.

create function shell_api.files(environment_id uuid, at bigint default null)
returns table (
  path text, type text, mode text, size bigint, sha256 text, modified_at timestamptz, target text, link bigint,
  changed_by bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(files.environment_id);
  return query select f.* from shell.files(files.environment_id, files.at) as f;
end
$$;
comment on function shell_api.files(uuid, bigint) is 'The files of a session, now or as a command left them.';

create function shell_api.file_changes(command_id bigint)
returns table (
  change text, path text, old_path text, type text, old_size bigint, size bigint, old_sha256 text, sha256 text,
  old_mode text, mode text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_command(file_changes.command_id);
  return query select c.* from shell.file_changes(file_changes.command_id) as c;
end
$$;
comment on function shell_api.file_changes(bigint) is 'What a command created, modified, deleted or renamed.';

create function shell_api.file_history(environment_id uuid, path text)
returns table (
  command_id bigint, change text, type text, size bigint, sha256 text, mode text, modified_at timestamptz,
  changed_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(file_history.environment_id);
  return query select h.* from shell.file_history(file_history.environment_id, file_history.path) as h;
end
$$;
comment on function shell_api.file_history(uuid, text) is 'Which commands made a path what it was, the oldest first.';

create function shell_api.read_file(environment_id uuid, path text, at bigint default null) returns bytea
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Putting it together, checking it and making text of it takes several times as much memory.
  largest constant bigint := 33554432;
  size bigint;
begin
  perform shell.require_visible_session(read_file.environment_id);
  size := (shell.file_in_tree(shell.tree_at(read_file.environment_id, read_file.at), read_file.path)).size;
  if size > largest then
    raise exception using
      errcode = 'PS041',
      message = format('the file has %s bytes, more than the %s that a request may read', size, largest),
      hint = 'Read it in its session, with head, tail or dd.';
  end if;
  return shell.read_file(read_file.environment_id, read_file.path, read_file.at);
end
$$;
comment on function shell_api.read_file(uuid, text, bigint) is
  'What a file of a session holds, now or as a command left it, up to 32 MiB; never what is not what its hash says.';

create function shell_api.write_file(environment_id uuid, path text, content bytea, mode int default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(write_file.environment_id);
  return shell.write_file(write_file.environment_id, write_file.path, write_file.content, write_file.mode);
end
$$;
comment on function shell_api.write_file(uuid, text, bytea, int) is
  'Writes a file of a session, as a command of its own; returns its id. Content is \x and hexadecimal digits.';

create function shell_api.diff(from_command bigint, to_command bigint, path text default null) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_command(diff.from_command);
  perform shell.require_visible_command(diff.to_command);
  return shell.diff(diff.from_command, diff.to_command, diff.path);
end
$$;
comment on function shell_api.diff(bigint, bigint, text) is
  'What differs between the files that two commands left, as diff -u prints it: of one path, or of all.';

create function shell_api.create_snapshot(environment_id uuid, name text, description text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(create_snapshot.environment_id);
  return shell.create_snapshot(create_snapshot.environment_id, create_snapshot.name, create_snapshot.description);
end
$$;
comment on function shell_api.create_snapshot(uuid, text, text) is 'Keeps the state of a session by a name; returns its id.';

create function shell_api.restore_snapshot(environment_id uuid, name text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(restore_snapshot.environment_id);
  return shell.restore_snapshot(restore_snapshot.environment_id, restore_snapshot.name);
end
$$;
comment on function shell_api.restore_snapshot(uuid, text) is
  'Brings a session back to a snapshot of it, as a command of its own; returns its id.';

create function shell_api.delete_snapshot(environment_id uuid, name text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(delete_snapshot.environment_id);
  perform shell.delete_snapshot(delete_snapshot.environment_id, delete_snapshot.name);
end
$$;
comment on function shell_api.delete_snapshot(uuid, text) is 'Forgets a snapshot.';

create function shell_api.list_snapshots(environment_id uuid)
returns table (
  name text, description text, created_at timestamptz, after_command_id bigint, entries bigint, bytes bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(list_snapshots.environment_id);
  return query
    select s.name, s.description, s.created_at, s.after_command_id, coalesce(t.entries, 0), coalesce(t.bytes, 0)
    from shell.snapshots as s
    left join shell.trees as t on t.id = s.tree_id
    where s.environment_id = list_snapshots.environment_id
    order by s.created_at, s.id;
end
$$;
comment on function shell_api.list_snapshots(uuid) is 'The snapshots of a session, the oldest first.';

create function shell_api.storage(environment_id uuid)
returns table (session_bytes bigint, session_quota bigint, user_bytes bigint, user_quota bigint, entries bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(storage.environment_id);
  return query
    select coalesce(t.bytes, 0), q.session_bytes, coalesce(u.bytes, 0), q.user_bytes, coalesce(t.entries, 0)
    from shell.environments as e
    cross join shell.storage_quota(e.id) as q
    left join shell.trees as t on t.id = e.tree_id
    left join shell.user_storage as u on u.user_id = e.user_id
    where e.id = storage.environment_id;
end
$$;
comment on function shell_api.storage(uuid) is
  'What the files of a session have together, and all of its user, each content once; and what they may. Null is no limit.';

create function shell_api.set_retention(
  keep_days int default null, keep_versions int default null, environment_id uuid default null,
  user_id uuid default null
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  acting constant uuid := shell.acting_user(set_retention.user_id);
begin
  if set_retention.environment_id is not null then
    perform shell.require_visible_session(set_retention.environment_id);
  end if;
  perform shell.set_retention(
    acting, set_retention.keep_days, set_retention.keep_versions, set_retention.environment_id);
end
$$;
comment on function shell_api.set_retention(int, int, uuid, uuid) is
  'Says what is kept of a session, or of all of the user''s; with neither days nor versions, all.';

create function shell_api.verify_history(environment_id uuid) returns table (command_id bigint, problem text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(verify_history.environment_id);
  return query select v.* from shell.verify_history(verify_history.environment_id) as v;
end
$$;
comment on function shell_api.verify_history(uuid) is
  'No row where the finished commands of a session and their files are what they were; else the first that is not.';

create function shell_api.replay_report(environment_id uuid)
returns table (original_command_id bigint, replay_command_id bigint, command text, differences text[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform shell.require_visible_session(replay_report.environment_id);
  return query select r.* from shell.replay_report(replay_report.environment_id) as r;
end
$$;
comment on function shell_api.replay_report(uuid) is
  'Which command of a replay was the first to do something else than its original, and what.';
