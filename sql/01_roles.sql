-- A schema that somebody else made beforehand could hold traps.
do $$
begin
  if (select n.nspowner <> r.oid
      from pg_catalog.pg_namespace as n, pg_catalog.pg_roles as r
      where n.nspname = 'shell' and r.rolname = current_user) then
    raise exception using
      errcode = 'PS015',
      message = 'a schema named shell is already there and belongs to somebody else',
      hint = 'Rename or drop it, then create the extension.';
  end if;
  if exists (select from pg_catalog.pg_namespace as n where n.nspname = 'shell_api') then
    raise exception using
      errcode = 'PS015',
      message = 'a schema named shell_api is already there',
      hint = 'Rename or drop it, then create the extension.';
  end if;
end
$$;

-- Roles belong to the cluster, not to the database: another database may have made them already,
-- and dropping the extension leaves them. None can log in until an administrator says so.
do $$
declare
  requests constant text[] := array['shell_anonymous', 'shell_user', 'shell_auditor', 'shell_admin'];
  wanted text;
begin
  foreach wanted in array requests || array['shell_worker', 'shell_runner'] loop
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = wanted) then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;

  -- What PostgREST and the server connect as. It has nothing of its own: for each request it becomes the role that
  -- the request's token names.
  if not exists (select from pg_catalog.pg_roles as r where r.rolname = 'shell_authenticator') then
    create role shell_authenticator nologin noinherit;
  end if;
  foreach wanted in array requests loop
    if not exists (
      select from pg_catalog.pg_auth_members as m
      where m.roleid = wanted::regrole and m.member = 'shell_authenticator'::regrole
    ) then
      execute format('grant %I to shell_authenticator', wanted);
    end if;
  end loop;
end
$$;

comment on schema shell is
  'pg_shell: sandbox = repository, session (environments) = branch, command = commit.';

create schema shell_api;
comment on schema shell_api is
  'The REST interface: what PostgREST, and the server of the terminal page, expose. Nothing else of the database is.';
