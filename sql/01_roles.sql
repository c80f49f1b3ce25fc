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
end
$$;

-- Roles belong to the cluster, not to the database: another database may have made them already,
-- and dropping the extension leaves them. None can log in until an administrator says so.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['shell_user', 'shell_worker', 'shell_auditor', 'shell_admin', 'shell_runner'] loop
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = wanted) then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;
end
$$;

comment on schema shell is
  'pg_shell: sandbox = repository, session (environments) = branch, command = commit.';
