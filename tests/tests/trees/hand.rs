//! A worker's part, played by hand.

use pg_shell_tests::{Db, Refusal, shared};
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

/// A user with a session, and a worker that has nothing else to do.
pub struct Hand {
    pub db: Db,
    pub user: Uuid,
    pub session: Uuid,
    pub worker: i64,
}

/// What a command leaves.
#[derive(Default, Clone)]
pub struct Change {
    pub entries: Vec<Value>,
    pub bodies: Vec<Vec<u8>>,
}

/// Standard base64.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |group: &[u8]| {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        (0..4)
            .map(|i| match i <= group.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]),
                false => '=',
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

impl Change {
    pub fn new() -> Change {
        Change::default()
    }

    fn with(mut self, entry: Value) -> Change {
        self.entries.push(entry);
        self
    }

    /// A file; its content's hash is put in when it is stored.
    pub fn file(self, path: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Change {
        self.timed(path, body, 1_000_000_007)
    }

    pub fn timed(
        mut self,
        path: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
        mtime_ns: i64,
    ) -> Change {
        let body = body.as_ref();
        self.bodies.push(body.to_vec());
        let entry = json!({"path": base64(path.as_ref()), "kind": "file", "mode": 0o644, "mtime_ns": mtime_ns,
            "size": body.len(), "body": self.bodies.len() - 1});
        self.with(entry)
    }

    pub fn folder(self, path: impl AsRef<[u8]>) -> Change {
        self.with(
            json!({"path": base64(path.as_ref()), "kind": "folder", "mode": 0o755, "mtime_ns": 5}),
        )
    }

    /// A folder that stands where another stood.
    pub fn new_folder(self, path: impl AsRef<[u8]>) -> Change {
        self.with(
            json!({"path": base64(path.as_ref()), "kind": "folder", "mode": 0o755, "mtime_ns": 5,
            "replaces": true}),
        )
    }

    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Change {
        self.with(
            json!({"path": base64(path.as_ref()), "kind": "symlink", "mtime_ns": 5,
            "target": base64(target.as_ref())}),
        )
    }

    pub fn gone(self, path: impl AsRef<[u8]>) -> Change {
        self.with(json!({"path": base64(path.as_ref()), "kind": "gone"}))
    }

    /// Sets a field of the last entry.
    pub fn set(mut self, field: &str, value: Value) -> Change {
        self.entries.last_mut().expect("an entry")[field] = value;
        self
    }
}

impl Hand {
    pub fn new(name: &str) -> Hand {
        Hand::of(shared::cluster().db(), name)
    }

    pub fn of(db: Db, name: &str) -> Hand {
        let user = db.user(name);
        let session = db.session(user);
        let worker = db.one(
            "select shell.register_worker($1, 'nobody', '0', 1)",
            &[&name],
        );
        Hand {
            db,
            user,
            session,
            worker,
        }
    }

    /// Takes a waiting command of the session from all that wait; its attempt, and the tree with which it begins.
    pub fn take(&self, command: i64) -> (i32, Option<i64>) {
        // Other tests have commands waiting; a claim takes whose turn it is.
        let sql = "update shell.commands as c
            set status = 'running', worker_id = $2, attempt = attempt + 1, claimed_at = now(), tree_id = e.tree_id,
              cwd_snapshot = e.cwd, env_snapshot = e.env, shell_state_snapshot = e.shell_state
            from shell.environments as e where c.id = $1 and e.id = c.environment_id
            returning attempt, c.tree_id";
        let row = &self.db.query(sql, &[&command, &self.worker])[0];
        (row.get(0), row.get(1))
    }

    /// Stores what a command leaves; the tree, or why it was refused.
    pub fn store(
        &self,
        command: i64,
        attempt: i32,
        change: &Change,
    ) -> Result<Option<i64>, String> {
        let rows = self
            .stored(command, attempt, change)
            .unwrap_or_else(|e| panic!("{e:?}"));
        match rows.get::<_, Option<String>>("refusal") {
            Some(refusal) => Err(refusal),
            None => Ok(rows.get("tree_id")),
        }
    }

    pub fn stored(&self, command: i64, attempt: i32, change: &Change) -> Result<Row, Refusal> {
        let hashes: Vec<String> = self.db.column(
            "select encode(sha256(b), 'hex') from unnest($1::bytea[]) with ordinality as u (b, n) order by n",
            &[&change.bodies],
        );
        let mut entries = change.entries.clone();
        for entry in &mut entries {
            if let Some(body) = entry.get("body").and_then(Value::as_u64) {
                entry["content"] = json!(hashes[body as usize]);
            }
        }
        let contents: Vec<Value> = (hashes.iter().zip(&change.bodies))
            .map(|(hash, body)| {
                let chunks: Vec<_> = (!body.is_empty()).then_some(hash).into_iter().collect();
                json!({"hash": hash, "size": body.len(), "chunks": chunks})
            })
            .collect();
        let bodies: Vec<&Vec<u8>> = change
            .bodies
            .iter()
            .filter(|body| !body.is_empty())
            .collect();
        let sql = "select * from shell.add_tree($1, $2, $3, $4, $5,
            array(select sha256(b) from unnest($6::bytea[]) as b), $6)";
        self.db.tried(
            sql,
            &[
                &self.worker,
                &command,
                &attempt,
                &json!(entries),
                &json!(contents),
                &bodies,
            ],
        )
    }

    /// Writes a command back; true if it was still this worker's.
    pub fn finish(&self, command: i64, attempt: i32, fields: Value) -> bool {
        let mut result = json!({"command_id": command, "attempt": attempt, "exit_code": 0, "output": "out\n",
            "stdout": "out\n", "stderr": "", "output_bytes": 4, "truncated": false, "age_us": 10, "duration_us": 5,
            "cpu_us": 3, "peak_memory_bytes": 1});
        let fields = fields.as_object().cloned().unwrap_or_default();
        result.as_object_mut().expect("an object").extend(fields);
        let sql = "select shell.finish_commands($1, $2)";
        !self
            .db
            .query(sql, &[&self.worker, &json!([result])])
            .is_empty()
    }

    /// A command of the session, from submit to done.
    pub fn run(&self, change: &Change) -> i64 {
        self.run_in(self.session, change)
    }

    pub fn run_in(&self, session: Uuid, change: &Change) -> i64 {
        let command = self.db.submit_to(self.user, session, "by hand");
        let (attempt, _) = self.take(command);
        let tree = self
            .store(command, attempt, change)
            .expect("no quota is exceeded");
        assert!(self.finish(command, attempt, json!({"tree_after": tree})));
        command
    }

    /// Path, kind and content's size of all that a session has.
    pub fn files(&self, session: Uuid) -> Vec<String> {
        self.files_at(session, None)
    }

    pub fn files_at(&self, session: Uuid, at: Option<i64>) -> Vec<String> {
        let sql = "select substring(path from 15) || case type when 'folder' then '/' when 'symlink' then '@'
            else ':' || size end from shell.files($1, $2)";
        self.db.column(sql, &[&session, &at])
    }

    pub fn tree(&self, session: Uuid) -> Option<i64> {
        self.db.one(
            "select tree_id from shell.environments where id = $1",
            &[&session],
        )
    }

    /// What `verify_history` says.
    pub fn broken(&self, session: Uuid) -> Option<(i64, String)> {
        let rows = self
            .db
            .query("select * from shell.verify_history($1)", &[&session]);
        assert!(rows.len() <= 1);
        rows.first().map(|row| (row.get(0), row.get(1)))
    }
}
