-- History is history: what is finished is never written again, by anybody.

create function shell.refuse_to_change_history() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PS009',
    message = format('command %s is finished and cannot be changed', old.id),
    hint = 'Submit a new command, or fork the session from this one.';
end
$$;

create trigger finished_commands_never_change
before update on shell.commands
for each row
when (old.finished_at is not null)
execute function shell.refuse_to_change_history();
