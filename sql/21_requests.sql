-- What a request may ask for. The functions of shell_api that act run as their owner, whom no policy binds: these stand
-- at their beginning. Somebody else's command or session is told apart from none by nobody.

create function shell.require_reader(user_id uuid) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(require_reader.user_id <> shell.current_user_id(), require_reader.user_id is not null)
    and not shell.reads_all()
  then
    raise exception using
      errcode = 'insufficient_privilege',
      message = 'this request may not name another user',
      hint = 'Leave user_id out: the user is the one who signed in.';
  end if;
  return true;
end
$$;
comment on function shell.require_reader(uuid) is
  'True, for null as well, which names nobody; raises 42501 where the request may not see what is this user''s.';

create function shell.acting_user(user_id uuid) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  acting constant uuid := coalesce(acting_user.user_id, shell.current_user_id());
begin
  if acting is null then
    raise exception using
      errcode = 'insufficient_privilege',
      message = 'this request has no user',
      hint = 'Sign in with shell_api.sign_in, and send its token.';
  end if;
  if acting is distinct from shell.current_user_id() and not shell.is_admin() then
    perform shell.require_reader(acting);
    raise exception using
      errcode = 'insufficient_privilege',
      message = 'this request may not act for another user',
      hint = 'Leave user_id out: the user is the one who signed in.';
  end if;
  return acting;
end
$$;
comment on function shell.acting_user(uuid) is
  'For whom the request acts: the user who signed in, or, for an administrator, the one it names. Raises 42501.';

create function shell.require_visible_command(command_id bigint) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from shell.commands as c
    where c.id = require_visible_command.command_id and (c.user_id = shell.current_user_id() or shell.reads_all())
  ) then
    perform shell.refuse(
      404, 'PS006', format('there is no command %s', coalesce(require_visible_command.command_id::text, '(null)')),
      'shell_api.latest_output() lists your commands.');
  end if;
  return true;
end
$$;
comment on function shell.require_visible_command(bigint) is 'True; answers 404, PS006, where the request sees no such command.';

create function shell.require_visible_session(environment_id uuid) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from shell.environments as e
    where e.id = require_visible_session.environment_id
      and (e.user_id = shell.current_user_id() or shell.reads_all())
  ) then
    perform shell.refuse(
      404, 'PS002',
      format('there is no session %s', coalesce(require_visible_session.environment_id::text, '(null)')),
      'shell_api.list_sessions() lists your sessions.');
  end if;
  return true;
end
$$;
comment on function shell.require_visible_session(uuid) is
  'True; answers 404, PS002, where the request sees no such session.';
