//! The extension: the schema `shell` of `sql/`, and `shell.run_command`.
//!
//! All that is SQL stands in `sql/`, in the order in which it is read. Written in Rust is only what SQL
//! cannot do: `run_command` starts a confined child and waits for it, `identity` hashes passwords and signs
//! tokens, `diff` compares texts, `settings` are what an administrator may set, and `error` says which SQLSTATE each failure has.

use pgrx::prelude::*;

mod confinement;
mod diff;
mod error;
mod fmgr;
mod identity;
mod run_command;
mod running;
mod settings;
mod text;

#[cfg(any(test, feature = "pg_test"))]
mod tests;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../../sql/01_roles.sql", bootstrap);
extension_sql_file!("../../sql/02_types.sql", requires = ["01_roles"]);
extension_sql_file!("limits.sql", requires = ["02_types"]);
extension_sql_file!("../../sql/03_tables.sql", requires = ["limits"]);
extension_sql_file!("../../sql/04_files.sql", requires = ["03_tables"]);
extension_sql_file!("../../sql/05_history.sql", requires = ["04_files"]);
extension_sql_file!("../../sql/06_sessions.sql", requires = ["05_history"]);
extension_sql_file!("../../sql/07_commands.sql", requires = ["06_sessions"]);
extension_sql_file!("../../sql/08_trees.sql", requires = ["07_commands"]);
extension_sql_file!("../../sql/09_storing.sql", requires = ["08_trees"]);
extension_sql_file!("../../sql/10_workers.sql", requires = ["09_storing"]);
extension_sql_file!("../../sql/11_queue.sql", requires = ["10_workers"]);
extension_sql_file!("diff.sql", requires = ["11_queue"]);
extension_sql_file!("../../sql/12_reading.sql", requires = ["diff"]);
extension_sql_file!("../../sql/13_changes.sql", requires = ["12_reading"]);
extension_sql_file!("../../sql/14_writing.sql", requires = ["13_changes"]);
extension_sql_file!("../../sql/15_proof.sql", requires = ["14_writing"]);
extension_sql_file!("../../sql/16_merging.sql", requires = ["15_proof"]);
extension_sql_file!("../../sql/17_retention.sql", requires = ["16_merging"]);
extension_sql_file!("../../sql/18_upkeep.sql", requires = ["17_retention"]);
extension_sql_file!("../../sql/19_views.sql", requires = ["18_upkeep"]);
extension_sql_file!("run_command.sql", requires = ["19_views"]);
extension_sql_file!("confinement.sql", requires = ["run_command"]);
extension_sql_file!("identity.sql", requires = ["confinement"]);
extension_sql_file!("../../sql/20_identity.sql", requires = ["identity"]);
extension_sql_file!("../../sql/21_requests.sql", requires = ["20_identity"]);
extension_sql_file!("../../sql/22_api.sql", requires = ["21_requests"]);
extension_sql_file!("../../sql/23_files_api.sql", requires = ["22_api"]);
extension_sql_file!("../../sql/24_html.sql", requires = ["23_files_api"]);
extension_sql_file!("../../sql/25_policies.sql", requires = ["24_html"]);
// The last: it takes from PUBLIC what was made before it.
extension_sql_file!("../../sql/26_grants.sql", requires = ["25_policies"]);

/// What Postgres calls when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register();
}

/// How `cargo pgrx test` sets up its cluster.
#[cfg(test)]
pub mod pg_test {
    /// Nothing needs to be prepared.
    pub fn setup(_options: Vec<&str>) {}

    /// Lines for its postgresql.conf.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        Vec::new()
    }
}
