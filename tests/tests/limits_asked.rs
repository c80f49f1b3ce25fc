//! Limits: what may be asked for, and which of all that are set holds.

use pg_shell_tests::{Cluster, Db, shared};
use serde_json::{Value, json};

const KEYS: [(&str, i64, i64); 8] = [
    ("wall_seconds", 1, 86_400),
    ("cpu_seconds", 1, 86_400),
    ("memory_bytes", 16 << 20, 1 << 40),
    ("processes", 1, 32_768),
    ("open_files", 32, 65_536),
    ("file_size_bytes", 64 << 10, 1 << 40),
    ("disk_bytes", 64 << 10, 1 << 40),
    ("output_bytes", 1, 64 << 20),
];

/// What a worker is handed for the next command in the queue, in the order of [`KEYS`].
fn claimed(db: &Db) -> [i64; 8] {
    db.run("begin");
    let rows = db.query(
        "select w.* from shell.register_worker('test', 'test', 'test', 1) as r,
           lateral shell.claim_commands(r, 1, null) as w",
        &[],
    );
    let handed = KEYS.map(|(key, ..)| rows[0].get(key));
    db.run("rollback; select pg_advisory_unlock_all()");
    handed
}

fn defaults(db: &Db) -> [i64; 8] {
    let row = &db.query("select * from shell.default_limits()", &[])[0];
    KEYS.map(|(key, ..)| row.get(key))
}

#[test]
fn what_is_no_object_of_limits_is_refused() {
    let (db, _alone) = shared::alone();
    let user = db.user("wrong limits");
    let long = "x".repeat(100_000);
    let deep = format!(
        "'{{\"processes\": {}5{}}}'",
        "[".repeat(3000),
        "]".repeat(3000)
    );
    let mut wrong = vec![
        "'null'".to_owned(),
        "'[]'".into(),
        "'[{\"processes\": 1}]'".into(),
        "'5'".into(),
        "'\"{}\"'".into(),
        "'true'".into(),
        "'{\"\": 1}'".into(),
        "'{\"processors\": 1}'".into(),
        "'{\"Processes\": 1}'".into(),
        "'{\"processes \": 1}'".into(),
        "'{\"wall\": 1}'".into(),
        "'{\"ctid\": 1}'".into(),
        "'{\"processes\": 5, \"timeout\": 1}'".into(),
        format!("'{{\"{long}\": 1}}'"),
        format!("'{{\"processes\": \"{long}\"}}'"),
        deep,
        // Numbers and texts that are none once they are JSON.
        "jsonb_build_object('processes', 'NaN'::numeric)".into(),
        "jsonb_build_object('processes', 'infinity'::float8)".into(),
    ];
    for value in [
        "0",
        "-1",
        "-0",
        "1.5",
        "0.5",
        "1.0",
        "1e400",
        "1e131071",
        "-1e400",
        "1e-5",
        "null",
        "true",
        "\"5\"",
        "\"\"",
        "\"NaN\"",
        "\"5; drop table shell.users\"",
        "[5]",
        "{\"processes\": 5}",
        "{}",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999999999999",
    ] {
        wrong.extend(KEYS.map(|(key, ..)| format!("'{{\"{key}\": {value}}}'")));
    }
    for (key, least, most) in KEYS {
        wrong.push(format!("'{{\"{key}\": {}}}'", least - 1));
        wrong.push(format!("'{{\"{key}\": {}}}'", most + 1));
    }
    let call =
        |limits: &str| format!("select shell.submit_command('{user}', 'true', limits => {limits})");
    for limits in &wrong {
        db.refused_with_hint(&call(limits), "PS016");
        let refusal = db.refused(&call(limits), &[]);
        assert!(refusal.message.len() < 200, "{refusal:?}");
        for (key, least, most) in KEYS {
            let named = format!("{key} ({least} to {most})");
            assert!(refusal.hint.contains(&named), "{refusal:?}");
        }
    }
    // What is no JSON at all, Postgres refuses itself.
    for limits in [
        "'{\"processes\": NaN}'",
        "'{\"processes\": 0x5}'",
        "''",
        "'{'",
    ] {
        db.refused_whole(&call(limits), "22P02");
    }
    let refusal = db.refused(&call("'{\"processes\": \"many\"}'"), &[]);
    assert_eq!(
        refusal.message,
        "processes is not a positive whole number: \"many\""
    );
    let refusal = db.refused(&call("'{\"memory_bytes\": 5}'"), &[]);
    assert_eq!(refusal.message, "memory_bytes is out of its range: 5");
}

#[test]
fn run_command_refuses_what_are_no_limits() {
    let (db, _alone) = shared::alone();
    for limits in [
        "null",
        "[]",
        "5",
        "\"x\"",
        "{\"a\": 1}",
        "{\"processes\": 0}",
        "{\"processes\": -1}",
        "{\"processes\": 1.5}",
        "{\"processes\": \"5\"}",
        "{\"processes\": null}",
        "{\"processes\": [5]}",
        "{\"processes\": 1e400}",
        "{\"processes\": 99999999999999999999}",
        "{\"memory_bytes\": 1}",
    ] {
        let sql = format!("select shell.run_command('/', '{{}}', 'true', '{limits}')");
        db.refused_with_hint(&sql, "PS016");
    }
    db.run("select shell.run_command('/', '{}', 'true', null), shell.run_command('/', '{}', 'true', '{}')");
}

#[test]
fn every_limit_may_be_asked_for_within_its_range() {
    let (db, _alone) = shared::alone();
    let user = db.user("right limits");
    for (key, least, most) in KEYS {
        for value in [least, most] {
            let id = db.submit_limited(user, "true", &json!({ key: value }));
            let sql = format!("select (limits).{key} from shell.commands where id = $1");
            assert_eq!(db.one::<i64>(&sql, &[&id]), value);
            db.cancel(id);
        }
    }
    for nothing in ["null", "'{}'"] {
        let sql = format!("select shell.submit_command('{user}', 'true', limits => {nothing})");
        let id: i64 = db.one(&sql, &[]);
        let stored: Option<String> = db.one(
            "select limits::text from shell.commands where id = $1",
            &[&id],
        );
        assert_eq!(stored, None);
        db.cancel(id);
    }
    // As JSON goes, of two values under one key the last counts.
    let sql = format!(
        "select shell.submit_command('{user}', 'true', limits => '{{\"processes\": 0, \"processes\": 7}}')"
    );
    let id: i64 = db.one(&sql, &[]);
    let stored: i64 = db.one(
        "select (limits).processes from shell.commands where id = $1",
        &[&id],
    );
    assert_eq!(stored, 7);
    // The row itself holds nothing else, whoever writes it.
    for (key, least, most) in KEYS {
        for value in [least - 1, most + 1] {
            let sql = format!("update shell.commands set limits.{key} = {value} where id = {id}");
            db.refused_whole(&sql, "23514");
            let sandbox =
                format!("update shell.sandboxes set {key} = {value} where owner_id = '{user}'");
            db.refused_whole(&sandbox, "23514");
        }
    }
    db.cancel(id);
    db.refused_with_hint(
        &format!("update shell.commands set limits.processes = 9 where id = {id}"),
        "PS009",
    );
}

#[test]
fn nobody_asks_for_more_than_the_sandbox_has() {
    let (db, _alone) = shared::alone();
    let user = db.user("greedy");
    db.limit(user, "memory_bytes", 64 << 20);
    let asks = |limits: Value| {
        format!("select shell.submit_command('{user}', 'true', limits => '{limits}')")
    };
    db.refused_with_hint(&asks(json!({"memory_bytes": (64 << 20) + 1})), "PS016");
    db.refused_with_hint(
        &asks(json!({"processes": 1, "memory_bytes": 1_i64 << 40})),
        "PS016",
    );
    let refusal = db.refused(&asks(json!({"memory_bytes": 1 << 30})), &[]);
    assert_eq!(
        refusal.message,
        "memory_bytes is more than the 67108864 of the session's sandbox: 1073741824"
    );
    let id: i64 = db.one(
        &asks(json!({"memory_bytes": 64 << 20, "processes": 9999})),
        &[],
    );
    let handed = claimed(&db);
    assert_eq!((handed[2], handed[3]), (64 << 20, defaults(&db)[3]));
    db.cancel(id);
}

#[test]
fn the_least_of_maximum_sandbox_or_default_and_command_holds() {
    let (db, _alone) = shared::alone();
    for (at, (key, least, most)) in KEYS.into_iter().enumerate() {
        let default = defaults(&db)[at];
        let (less, more) = (least + 1, default * 2);
        assert!(less < default && more <= most, "{key}");
        // The maximum, the sandbox's, the command's, and what comes of them.
        let cases = [
            (None, None, None, default),
            (None, None, Some(less), less),
            (None, None, Some(more), default),
            (None, Some(more), None, more),
            (None, Some(more), Some(less), less),
            (None, Some(less), None, less),
            (None, Some(less), Some(least), least),
            (Some(more), None, None, default),
            (Some(less), None, None, less),
            (Some(less), Some(more), None, less),
            (Some(less), Some(more), Some(more), less),
            (Some(less), Some(more), Some(least), least),
            (Some(less), Some(least), None, least),
        ];
        for (case, (maximum, sandbox, command, holds)) in cases.into_iter().enumerate() {
            let user = db.user(&format!("{key} {case}"));
            if let Some(value) = sandbox {
                db.limit(user, key, value);
            }
            let asked = command.map_or(json!({}), |value| json!({ key: value }));
            let id = db.submit_limited(user, "true", &asked);
            let maximum = maximum.map_or(json!({}), |value| json!({ key: value }));
            db.run(&format!("set pg_shell.max_limits = '{maximum}'"));
            let mut expected = defaults(&db);
            expected[at] = holds;
            assert_eq!(claimed(&db), expected, "{key} {case}");
            db.cancel(id);
        }
    }
}

#[test]
fn the_maximum_is_a_superusers_to_set() {
    let cluster = Cluster::new();
    let db = cluster.db();
    db.run(
        "create role asker; grant usage on schema shell to asker;
         grant execute on function shell.run_command to asker;
         alter database pg_shell set pg_shell.max_limits = '{\"wall_seconds\": 1}'",
    );
    // Before the library is there as after: whoever sets it without the right has set nothing.
    for prepare in ["", "select shell.maximum_limits();"] {
        let db = cluster.db();
        db.run(&format!("{prepare} set role asker"));
        for setting in ["max_limits = '{}'", "timeout = '1d'"] {
            let sql =
                format!("do $$ begin set pg_shell.{setting}; exception when others then end $$");
            db.run(&sql);
        }
        let row = db.query(
            "select exit_code from shell.run_command('/', '{}', 'sleep 1000', '{\"wall_seconds\": 3600}')",
            &[],
        );
        assert_eq!(row[0].get::<_, i32>(0), 124);
        assert_eq!(
            db.refused("set pg_shell.max_limits = '{}'", &[]).code,
            "42501"
        );
        assert_eq!(db.refused("set pg_shell.timeout = '1d'", &[]).code, "42501");
        let shown: String = db.one("select current_setting('pg_shell.max_limits')", &[]);
        assert_eq!(shown, "{\"wall_seconds\": 1}");
    }

    let db = cluster.db();
    db.run("select shell.maximum_limits()");
    for wrong in [
        "{\"wall\": 1}",
        "{\"processes\": 0}",
        "{\"processes\": \"5\"}",
        "[]",
        "x",
        "{} {}",
    ] {
        let refusal = db.refused(&format!("set pg_shell.max_limits = '{wrong}'"), &[]);
        assert_eq!(refusal.code, "22023", "{wrong}: {refusal:?}");
    }
}

#[test]
fn a_maximum_that_cannot_be_read_lets_nothing_run() {
    let cluster = Cluster::new();
    let db = cluster.db();
    db.run("alter database pg_shell set pg_shell.max_limits = '{\"wall_second\": 1}'");
    let user = db.user("stuck");
    let id = db.submit(user, "true");
    let db = cluster.db();
    let refusal = db.refused("select shell.run_command('/', '{}', 'true')", &[]);
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        (
            "PS016",
            "pg_shell.max_limits: there is no limit \"wall_second\""
        )
    );
    let worker = cluster.worker(&[]);
    let refused = "a claim was refused error=database: pg_shell.max_limits";
    let told = worker.process().wait_for_log(refused, 0);
    assert_eq!(db.command(id).status, "pending");
    // A notice makes it try again, and it does not by itself.
    db.submit(user, "true");
    worker.process().wait_for_log(refused, told);
    let count = worker.log().matches(refused).count();
    assert!(count <= 5, "{count} times");
    drop(worker);
    db.run("alter database pg_shell reset pg_shell.max_limits");
    let _worker = cluster.worker(&["--grace", "0.1"]);
    assert_eq!(db.wait(id).status, "done");
}

#[test]
fn a_workers_own_maximum_binds_and_no_row_is_trusted() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("bound");
    // A database that hands out nonsense.
    db.run(
        "create schema honest;
         alter function shell.work(bigint, json, int, uuid) set schema honest;
         create function shell.work(bigint, json, int, uuid) returns setof shell.claimed_command
         language sql security definer as $$
           select (jsonb_populate_record(c, '{\"wall_seconds\": -5, \"processes\": 9223372036854775807,
             \"memory_bytes\": 9223372036854775807, \"output_bytes\": 9223372036854775807, \"open_files\": null,
             \"disk_bytes\": -9223372036854775808, \"file_size_bytes\": 0, \"cpu_seconds\": 0}')).*
           from honest.work($1, $2, $3, $4) as c $$;
         grant execute on function shell.work(bigint, json, int, uuid) to shell_worker",
    );
    let flags = [
        "--max-limits",
        "{\"open_files\": 100, \"output_bytes\": 20}",
    ];
    let worker = cluster.worker(&flags);
    let command = db.finish(user, "ulimit -n; ulimit -t; stat -f -c '%S %b' /tmp");
    assert_eq!(command.text(), "100\n1\n4096 16\n", "{command:?}");
    assert_eq!(db.finish(user, "seq 100").text().len(), 20);
    let slow = db.finish(user, "sleep 1000");
    assert_eq!(
        slow.reason(),
        "The command took longer than 1 second and was ended."
    );
    drop(worker);

    for wrong in ["{\"open_files\": 1}", "{\"files\": 100}", "100", "[]", ""] {
        let log = cluster.starting_worker(&["--max-limits", wrong]).refusal();
        assert!(log.contains("--max-limits"), "{wrong}: {log}");
    }
}

#[test]
fn a_maximum_of_the_database_binds_submitted_commands() {
    let cluster = Cluster::new();
    let db = cluster.db();
    db.run("alter role shell_worker set pg_shell.max_limits = '{\"open_files\": 50}'");
    let _worker = cluster.worker(&[]);
    let user = db.user("bound");
    db.limit(user, "open_files", 2000);
    let command = db.finish_limited(user, "ulimit -n", &json!({"open_files": 1000}));
    assert_eq!(command.text(), "50\n");
}
