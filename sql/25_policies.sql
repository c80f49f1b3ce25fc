-- Which rows each role sees. Enabled and forced on every table: who is given a right on one, and is not named here,
-- sees nothing. A superuser passes, and so do the functions that run as one, the workers' among them.

alter table shell.users enable row level security, force row level security;
alter table shell.sandboxes enable row level security, force row level security;
alter table shell.environments enable row level security, force row level security;
alter table shell.commands enable row level security, force row level security;
alter table shell.output_chunks enable row level security, force row level security;
alter table shell.workers enable row level security, force row level security;
alter table shell.chunks enable row level security, force row level security;
alter table shell.unnamed_objects enable row level security, force row level security;
alter table shell.contents enable row level security, force row level security;
alter table shell.trees enable row level security, force row level security;
alter table shell.fs_entries enable row level security, force row level security;
alter table shell.checkpoints enable row level security, force row level security;
alter table shell.user_contents enable row level security, force row level security;
alter table shell.user_storage enable row level security, force row level security;
alter table shell.removed_commands enable row level security, force row level security;
alter table shell.snapshots enable row level security, force row level security;
alter table shell.retention_policies enable row level security, force row level security;
alter table shell.removed_versions enable row level security, force row level security;
alter table shell.upkeep_state enable row level security, force row level security;
alter table shell.credentials enable row level security, force row level security;
alter table shell.user_sessions enable row level security, force row level security;
alter table shell.sign_in_attempts enable row level security, force row level security;

-- A signed-in user sees what is its own. Whose that is, is asked once a query; and no plain "=": the planner would take
-- the user for a constant, and look for it from the end of everybody's log.

create policy own on shell.users for select to shell_user using (id = (select shell.current_user_id()));
create policy own on shell.sandboxes for select to shell_user using (owner_id = (select shell.current_user_id()));
create policy own on shell.environments for select to shell_user
using (user_id = any(array(select shell.current_user_id())));
create policy own on shell.commands for select to shell_user
using (user_id = any(array(select shell.current_user_id())));
create policy own on shell.output_chunks for select to shell_user using (
  exists (
    select from shell.commands as c
    where c.id = output_chunks.command_id and c.user_id = any(array(select shell.current_user_id()))
  )
);
create policy own on shell.trees for select to shell_user
using (user_id = any(array(select shell.current_user_id())));
create policy own on shell.snapshots for select to shell_user
using (user_id = (select shell.current_user_id()));
create policy own on shell.retention_policies for select to shell_user
using (user_id = (select shell.current_user_id()));
create policy own on shell.removed_versions for select to shell_user
using (user_id = (select shell.current_user_id()));
create policy own on shell.removed_commands for select to shell_user
using (user_id = (select shell.current_user_id()));
create policy own on shell.user_storage for select to shell_user
using (user_id = (select shell.current_user_id()));
create policy own on shell.user_sessions for select to shell_user
using (user_id = (select shell.current_user_id()));

-- The auditor sees everything but credentials, which nobody does.

create policy auditor on shell.users for select to shell_auditor using (true);
create policy auditor on shell.sandboxes for select to shell_auditor using (true);
create policy auditor on shell.environments for select to shell_auditor using (true);
create policy auditor on shell.commands for select to shell_auditor using (true);
create policy auditor on shell.output_chunks for select to shell_auditor using (true);
create policy auditor on shell.workers for select to shell_auditor using (true);
create policy auditor on shell.chunks for select to shell_auditor using (true);
create policy auditor on shell.unnamed_objects for select to shell_auditor using (true);
create policy auditor on shell.contents for select to shell_auditor using (true);
create policy auditor on shell.trees for select to shell_auditor using (true);
create policy auditor on shell.fs_entries for select to shell_auditor using (true);
create policy auditor on shell.checkpoints for select to shell_auditor using (true);
create policy auditor on shell.user_contents for select to shell_auditor using (true);
create policy auditor on shell.user_storage for select to shell_auditor using (true);
create policy auditor on shell.removed_commands for select to shell_auditor using (true);
create policy auditor on shell.snapshots for select to shell_auditor using (true);
create policy auditor on shell.retention_policies for select to shell_auditor using (true);
create policy auditor on shell.removed_versions for select to shell_auditor using (true);
create policy auditor on shell.upkeep_state for select to shell_auditor using (true);
create policy auditor on shell.user_sessions for select to shell_auditor using (true);
create policy auditor on shell.sign_in_attempts for select to shell_auditor using (true);

-- So does the administrator, who also writes what the grants allow.

create policy administrator on shell.users to shell_admin using (true) with check (true);
create policy administrator on shell.sandboxes to shell_admin using (true) with check (true);
create policy administrator on shell.environments to shell_admin using (true) with check (true);
create policy administrator on shell.commands for select to shell_admin using (true);
create policy administrator on shell.output_chunks for select to shell_admin using (true);
create policy administrator on shell.workers for select to shell_admin using (true);
create policy administrator on shell.chunks for select to shell_admin using (true);
create policy administrator on shell.unnamed_objects for select to shell_admin using (true);
create policy administrator on shell.contents for select to shell_admin using (true);
create policy administrator on shell.trees for select to shell_admin using (true);
create policy administrator on shell.fs_entries for select to shell_admin using (true);
create policy administrator on shell.checkpoints for select to shell_admin using (true);
create policy administrator on shell.user_contents for select to shell_admin using (true);
create policy administrator on shell.user_storage for select to shell_admin using (true);
create policy administrator on shell.removed_commands for select to shell_admin using (true);
create policy administrator on shell.snapshots for select to shell_admin using (true);
create policy administrator on shell.retention_policies for select to shell_admin using (true);
create policy administrator on shell.removed_versions for select to shell_admin using (true);
create policy administrator on shell.upkeep_state for select to shell_admin using (true);
create policy administrator on shell.user_sessions for select to shell_admin using (true);
create policy administrator on shell.sign_in_attempts for select to shell_admin using (true);
