-- Nobody's by default. Functions are open to PUBLIC unless this is taken away, here for all at once.

revoke all on schema shell from public;
revoke all on all tables in schema shell from public;
revoke all on all sequences in schema shell from public;
revoke all on all functions in schema shell from public;

grant usage on schema shell to shell_worker, shell_auditor, shell_admin;

-- The worker claims and finishes through functions, and reads no table.
grant execute on function
  shell.worker_lock(bigint),
  shell.register_worker(text, text, text, int),
  shell.resume_worker(bigint, bigint[], int),
  shell.stop_worker(bigint),
  shell.work(bigint, json, int, uuid),
  shell.append_output(bigint, json),
  shell.release_commands(bigint, int, bigint[]),
  shell.heartbeat(bigint, interval, interval, int)
to shell_worker;

-- Who holds this role may run confined commands in backends, and nothing else of the schema.
grant usage on schema shell to shell_runner;
grant execute on function shell.run_command(text, jsonb, text, jsonb) to shell_runner;

-- The auditor reads everything and writes nothing.
grant select on all tables in schema shell to shell_auditor;

-- The administrator manages users and sandboxes, and acts for any user. History stays out of reach even so.
grant select on all tables in schema shell to shell_admin;
grant insert, update on shell.users, shell.sandboxes to shell_admin;
grant insert, update on shell.environments to shell_admin;
grant execute on function
  shell.default_limits(),
  shell.maximum_limits(),
  shell.submit_command(uuid, text, uuid, jsonb),
  shell.latest_output(uuid, int),
  shell.wait_command(bigint, interval),
  shell.cancel_command(bigint),
  shell.create_session(uuid, text),
  shell.fork_session(uuid, bigint, boolean),
  shell.replay_session(uuid)
to shell_admin;

-- What the host can do is for whoever has to judge or mend it. It takes nothing from its caller.
grant execute on function shell.confinement(), shell.confinement_report() to shell_admin, shell_auditor;
