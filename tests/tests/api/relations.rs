//! Who sees which rows of which table and view.

use pg_shell_tests::{Caller, Db};
use uuid::Uuid;

use crate::world::world;

/// What a reader sees of a table or a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// All rows.
    All,
    /// The user's own, of which there are some.
    Own,
    /// It may ask, and gets no row.
    None,
    /// It may not ask.
    Refused,
}
use Sees::{All, None as Nothing, Own, Refused};

/// Each table and view; whose a row is, as SQL; and what sees of it: its user, the same role without a user, the
/// auditor, the administrator.
#[rustfmt::skip]
const RELATIONS: &[(&str, &str, [Sees; 4])] = &[
    ("shell.users", "id", [Own, Nothing, All, All]),
    ("shell.sandboxes", "owner_id", [Own, Nothing, All, All]),
    ("shell.environments", "user_id", [Own, Nothing, All, All]),
    ("shell.commands", "user_id", [Own, Nothing, All, All]),
    ("shell.chunks", "null::uuid", [Refused, Refused, All, All]),
    ("shell.unnamed_objects", "null::uuid", [Refused, Refused, All, All]),
    ("shell.contents", "null::uuid", [Refused, Refused, All, All]),
    ("shell.trees", "user_id", [Own, Nothing, All, All]),
    ("shell.fs_entries", "null::uuid", [Refused, Refused, All, All]),
    ("shell.checkpoints", "null::uuid", [Refused, Refused, All, All]),
    ("shell.user_contents", "user_id", [Refused, Refused, All, All]),
    ("shell.user_storage", "user_id", [Own, Nothing, All, All]),
    ("shell.snapshots", "user_id", [Own, Nothing, All, All]),
    ("shell.retention_policies", "user_id", [Own, Nothing, All, All]),
    ("shell.removed_versions", "user_id", [Own, Nothing, All, All]),
    ("shell.removed_commands", "user_id", [Own, Nothing, All, All]),
    ("shell.upkeep_state", "null::uuid", [Refused, Refused, All, All]),
    ("shell.output_chunks", "(select c.user_id from shell.commands as c where c.id = command_id)", [Own, Nothing, All, All]),
    ("shell.workers", "null::uuid", [Refused, Refused, All, All]),
    ("shell.credentials", "user_id", [Refused, Refused, Refused, Refused]),
    ("shell.user_sessions", "user_id", [Own, Nothing, All, All]),
    ("shell.sign_in_attempts", "null::uuid", [Refused, Refused, All, All]),
    ("shell.command_metrics", "user_id", [Own, Nothing, All, All]),
    ("shell.user_usage", "user_id", [Own, Nothing, All, All]),
    ("shell.replay_differences", "(select c.user_id from shell.commands as c where c.id = replay_command_id)", [Own, Nothing, All, All]),
    ("shell.queue", "null::uuid", [Refused, Refused, All, All]),
    ("shell.worker_status", "null::uuid", [Refused, Refused, All, All]),
    ("shell_api.command_log", "user_id", [Own, Nothing, All, All]),
    ("shell_api.sessions", "user_id", [Own, Nothing, All, All]),
    ("shell_api.replay_differences", "(select c.user_id from shell.commands as c where c.id = replay_command_id)", [Own, Nothing, All, All]),
    ("shell_api.usage", "user_id", [Own, Nothing, All, All]),
    ("shell_api.command_metrics", "user_id", [Own, Nothing, All, All]),
];

fn sees(db: &Db, caller: &Caller, relation: &str, owner: &str, user: Uuid) -> Sees {
    let count = format!("select count(*) from {relation}");
    let all: i64 = db.one(&count, &[]);
    let allowed: bool = db.one(
        "select has_any_column_privilege($1, $2, 'select')",
        &[&caller.role, &relation],
    );
    if !allowed {
        assert_eq!(
            db.forbidden(caller, &count, &[]).code,
            "42501",
            "{relation}"
        );
        return Refused;
    }
    let (seen, others): (i64, i64) = db.request(caller, |db| {
        // Of the user's tokens a role may read some columns only.
        let others = format!("select count(*) from {relation} where {owner} is distinct from $1");
        (db.one(&format!("select count({owner}) + count(*) filter (where {owner} is null) from {relation}"), &[]), db.one(&others, &[&user]))
    });
    match (seen, others) {
        (0, _) => Nothing,
        (_, 0) => Own,
        (seen, _) => {
            assert_eq!(seen, all, "{relation}: some of the others'");
            All
        }
    }
}

#[test]
fn every_table_as_its_user_as_another_and_as_each_role() {
    let (db, world) = world();
    let found: Vec<String> = db.column(
        "select n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
         where n.nspname in ('shell', 'shell_api') and c.relkind in ('r', 'v', 'm', 'p', 'f') order by 1",
        &[],
    );
    let mut listed: Vec<&str> = RELATIONS.iter().map(|(name, ..)| *name).collect();
    listed.sort_unstable();
    assert_eq!(found, listed, "a table without an entry");

    for (relation, owner, expected) in RELATIONS {
        for user in [world.ann.user, world.bob.user] {
            let roles = [
                Caller::user(user),
                Caller::nobody("shell_user"),
                Caller::new("shell_auditor", user),
                Caller::new("shell_admin", user),
            ];
            let sees = roles.map(|caller| sees(&db, &caller, relation, owner, user));
            assert_eq!(sees, *expected, "{relation}");
        }
        let anonymous = sees(&db, &Caller::anonymous(), relation, owner, world.ann.user);
        assert_eq!(anonymous, Refused, "{relation}");
        for role in ["shell_worker", "shell_runner", "shell_authenticator"] {
            db.run(&format!("set role {role}"));
            let refusal = db.refused(&format!("select count(*) from {relation}"), &[]);
            assert_eq!(refusal.code, "42501", "{relation} as {role}");
            db.run("reset role");
        }
    }
}

#[test]
fn claims_that_name_nobody_see_nothing() {
    let (db, _) = world();
    let count = "select count(*) from shell.commands";
    for sub in [
        "null",
        "\"\"",
        "\"ann\"",
        "7",
        "{}",
        "\"00000000-0000-0000-0000-000000000000\"",
    ] {
        let mut caller = Caller::nobody("shell_user");
        caller.claims = serde_json::from_str(&format!("{{\"sub\": {sub}}}")).unwrap();
        assert_eq!(db.asked::<i64>(&caller, count, &[]), 0, "{sub}");
    }
    db.run("set role shell_user");
    assert_eq!(db.one::<i64>(count, &[]), 0);
    db.run("set request.jwt.claims = ''");
    assert_eq!(db.one::<i64>(count, &[]), 0);
}
