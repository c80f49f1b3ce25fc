-- What the library knows of limits. Read from there, so that each stands in one place: the defaults in the
-- launcher's code, the administrator's maximum in a setting that the library checks.

create function shell.default_limits() returns shell.limits
language c stable parallel safe
as 'MODULE_PATHNAME', 'pg_shell_default_limits';
comment on function shell.default_limits() is 'What a command may use whose sandbox does not say otherwise.';

create function shell.maximum_limits() returns shell.limits
language c stable parallel safe
as 'MODULE_PATHNAME', 'pg_shell_maximum_limits';
comment on function shell.maximum_limits() is
  'What no command may exceed: the setting pg_shell.max_limits; null where that is silent.';

create function shell.maximum_storage() returns shell.storage
language c stable parallel safe
as 'MODULE_PATHNAME', 'pg_shell_maximum_storage';
comment on function shell.maximum_storage() is
  'What files may have at most: the settings pg_shell.max_session_storage and pg_shell.max_user_storage; null is no limit.';
