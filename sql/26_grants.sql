-- Nobody's by default. Functions are open to PUBLIC unless this is taken away, here for all at once.

revoke all on schema shell from public;
revoke all on all tables in schema shell from public;
revoke all on all sequences in schema shell from public;
revoke all on all functions in schema shell from public;
revoke all on schema shell_api from public;
revoke all on all tables in schema shell_api from public;
revoke all on all functions in schema shell_api from public;
revoke all on type shell_api."text/html", shell_api.output_chunk from public;

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
  shell.heartbeat(bigint, interval, interval, int),
  shell.missing_chunks(bytea[]),
  shell.expect_objects(text[]),
  shell.add_chunks(bytea[], bytea[], text[], int[]),
  shell.add_tree(bigint, bigint, int, json, json, bytea[], bytea[]),
  shell.tree_entries(bigint),
  shell.tree_changes(bigint),
  shell.content_chunks(bytea[]),
  shell.read_chunks(bytea[]),
  shell.upkeep(int),
  shell.give_up_objects(text, int),
  shell.forget_objects(text[])
to shell_worker;

-- Who holds this role may run confined commands in backends, and nothing else of the schema.
grant usage on schema shell to shell_runner;
grant execute on function shell.run_command(text, jsonb, text, jsonb) to shell_runner;

-- The auditor reads everything but passwords and tokens, and writes nothing.
grant select on all tables in schema shell to shell_auditor;

-- The administrator manages users and sandboxes, and acts for any user. History stays out of reach even so.
grant select on all tables in schema shell to shell_admin;
grant insert, update on shell.users, shell.sandboxes to shell_admin;
grant insert, update on shell.environments to shell_admin;
grant execute on function
  shell.default_limits(),
  shell.maximum_limits(),
  shell.maximum_storage(),
  shell.submit_command(uuid, text, uuid, jsonb),
  shell.latest_output(uuid, int),
  shell.wait_command(bigint, interval),
  shell.cancel_command(bigint),
  shell.create_session(uuid, text),
  shell.fork_session(uuid, bigint, boolean),
  shell.replay_session(uuid),
  shell.set_password(uuid, text),
  shell.files(uuid, bigint),
  shell.file_changes(bigint),
  shell.file_history(uuid, text),
  shell.read_file(uuid, text, bigint),
  shell.write_file(uuid, text, bytea, int),
  shell.diff(bigint, bigint, text),
  shell.create_snapshot(uuid, text, text),
  shell.restore_snapshot(uuid, text),
  shell.delete_snapshot(uuid, text),
  shell.set_retention(uuid, int, int, uuid),
  shell.verify_history(uuid),
  shell.verify_files(uuid, bigint),
  shell.replay_report(uuid)
to shell_admin;

revoke all on shell.credentials, shell.user_sessions from shell_auditor, shell_admin;
grant select
(id, user_id, kind, name, created_at, expires_at, last_used_at, user_agent, ip_address, revoked_at)
on shell.user_sessions to shell_user, shell_auditor, shell_admin;

-- Requests. A signed-in user reads tables through the policies, and writes through functions only.
grant select on
  shell.users, shell.sandboxes, shell.environments, shell.commands, shell.output_chunks,
  shell.command_metrics, shell.user_usage, shell.replay_differences,
  shell.trees, shell.snapshots, shell.user_storage,
  shell.retention_policies, shell.removed_versions, shell.removed_commands
to shell_user;
grant usage on schema shell to shell_anonymous, shell_user;
grant usage on schema shell_api to shell_anonymous, shell_user, shell_auditor, shell_admin;
grant usage on type shell_api."text/html", shell_api.output_chunk to shell_user, shell_auditor, shell_admin;
grant select on all tables in schema shell_api to shell_user, shell_auditor, shell_admin;

grant execute on function shell.check_request() to shell_anonymous, shell_user, shell_auditor, shell_admin;
grant execute on function
  shell_api.sign_in(text, text),
  shell_api.exchange_token(text)
to shell_anonymous, shell_user, shell_auditor, shell_admin;

-- What reads, what is one's own account, and what these and the policies call.
grant execute on function
  shell.claims(),
  shell.uuid_of(text),
  shell.current_user_id(),
  shell.request_role(),
  shell.is_admin(),
  shell.reads_all(),
  shell.require_reader(uuid),
  shell.require_visible_command(bigint),
  shell.require_visible_session(uuid),
  shell.html(text),
  shell.plain_text(text),
  shell.command_as_html(shell_api.command_log),
  shell_api.latest_output(uuid, int),
  shell_api.list_sessions(uuid),
  shell_api.session_commands(uuid, bigint, int),
  shell_api.audit_log(),
  shell_api.replay_differences(uuid),
  shell_api.usage(),
  shell_api.metrics(uuid, int),
  shell_api.output_since(bigint, int),
  shell_api.latest_output_html(uuid, int),
  shell_api.command_html(bigint),
  shell_api.sessions_html(),
  shell_api.whoami(),
  shell_api.sign_out(),
  shell_api.sign_out_everywhere(),
  shell_api.create_token(text, interval),
  shell_api.list_tokens(),
  shell_api.revoke_token(uuid),
  shell_api.change_password(text, text),
  shell_api.files(uuid, bigint),
  shell_api.file_changes(bigint),
  shell_api.file_history(uuid, text),
  shell_api.read_file(uuid, text, bigint),
  shell_api.diff(bigint, bigint, text),
  shell_api.list_snapshots(uuid),
  shell_api.storage(uuid),
  shell_api.verify_history(uuid),
  shell_api.replay_report(uuid)
to shell_user, shell_auditor, shell_admin;

-- What acts.
grant execute on function
  shell_api.submit_command(text, uuid, uuid, jsonb),
  shell_api.wait_command(bigint, interval),
  shell_api.cancel_command(bigint),
  shell_api.create_session(text, uuid),
  shell_api.rename_session(uuid, text),
  shell_api.fork_session(bigint, uuid, boolean),
  shell_api.replay_session(uuid),
  shell_api.write_file(uuid, text, bytea, int),
  shell_api.create_snapshot(uuid, text, text),
  shell_api.restore_snapshot(uuid, text),
  shell_api.delete_snapshot(uuid, text),
  shell_api.set_retention(int, int, uuid, uuid)
to shell_user, shell_admin;

-- The server looks up whose cookie it is, checks the request in the statement by which it becomes somebody, and watches
-- output.
grant usage on schema shell to shell_authenticator;
grant execute on function
  shell.session_of(text, text, inet),
  shell.check_request(),
  shell.output_lock(text),
  shell.watch_output(),
  shell.unwatch_output()
to shell_authenticator;

-- What the host can do is for whoever has to judge or mend it. It takes nothing from its caller.
grant execute on function shell.confinement(), shell.confinement_report() to shell_admin, shell_auditor;
