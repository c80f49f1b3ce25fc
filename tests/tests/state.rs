//! What a session remembers from one command to the next, and what it forgets.

use pg_shell_tests::{Db, shared};

fn db() -> Db {
    shared::with_worker(&[]).db()
}

/// Submits commands back to back to a new user's session; returns what each printed.
#[track_caller]
fn printed(name: &str, commands: &[&str]) -> Vec<String> {
    let db = db();
    let user = db.user(name);
    let ids: Vec<i64> = commands
        .iter()
        .map(|command| db.submit(user, command))
        .collect();
    ids.into_iter()
        .map(|id| db.wait(id).text().to_owned())
        .collect()
}

/// The last command prints this.
#[track_caller]
fn assert_last(name: &str, commands: &[&str], expected: &str) {
    let all = printed(name, commands);
    assert_eq!(all.last().map(String::as_str), Some(expected), "{all:?}");
}

#[test]
fn back_to_back_commands_see_each_other() {
    assert_last("cd", &["cd /tmp", "pwd"], "/tmp\n");
    let mut commands = vec!["n=$((n+1)); echo $n"; 30];
    commands.push("echo $n");
    assert_last("count", &commands, "30\n");
}

#[test]
fn variables() {
    let set = "export E=exported; u=unexported; declare -a list=(a 'b c'); declare -i number=3";
    let show = "env | grep ^E=; env | grep -c ^u=; echo $u ${list[1]} $number";
    assert_last(
        "variables",
        &[set, show],
        "E=exported\n0\nunexported b c 3\n",
    );
    assert_last(
        "unset",
        &["export A=1", "unset A", "echo ${A-unset}"],
        "unset\n",
    );
    let odd = "export ODD=$'line\\nbreak \\'quote\\' \"double\" $HOME `x` \\\\ ü'";
    assert_last(
        "odd",
        &[odd, "printf %s \"$ODD\""],
        "line\nbreak 'quote' \"double\" $HOME `x` \\ ü",
    );
}

#[test]
fn functions_and_aliases() {
    let set = "greet() { echo \"hello $1\"; }; shopt -s expand_aliases; alias say='echo said'";
    assert_last(
        "functions",
        &[set, "greet you; say it"],
        "hello you\nsaid it\n",
    );
    assert_last(
        "unset -f",
        &["f() { echo f; }", "unset -f f", "type -t f || echo gone"],
        "gone\n",
    );
}

#[test]
fn options_and_umask() {
    let set = "set -o noglob -o pipefail; shopt -s nullglob; umask 027";
    let show = "set -o | grep -cE '^(noglob|pipefail) .*on'; shopt nullglob | grep -c on; umask";
    assert_last("options", &[set, show], "2\n1\n0027\n");
    assert_last(
        "option off",
        &["set -o noglob", "set +o noglob", "echo /us*"],
        "/usr\n",
    );
}

#[test]
fn what_exits_early_leaves_its_state() {
    assert_last("exit 3", &["cd /tmp; exit 3", "pwd"], "/tmp\n");
    assert_last(
        "set -e",
        &["cd /tmp; a=1; set -e; false; a=2", "pwd; echo $a"],
        "/tmp\n1\n",
    );
    assert_last("trap", &["trap 'echo bye' EXIT; cd /tmp", "pwd"], "/tmp\n");
    let trapped = printed(
        "own trap",
        &["trap 'echo bye; cd /usr' EXIT; cd /tmp; exit 4", "pwd"],
    );
    assert_eq!(trapped[0], "bye\n", "the user's own trap runs, once");
}

#[test]
fn scripts_of_many_lines() {
    let here = "cat > /tmp/x <<'END'\n$not expanded\nEOF\nEND\ncat /tmp/x\ncd /tmp";
    assert_eq!(
        printed("here", &[here, "pwd"]),
        ["$not expanded\nEOF\n", "/tmp\n"]
    );
    let lines =
        "for i in 1 2; do\n  echo $i\ndone\n# a comment\nif true; then\n  v='two\nlines'\nfi\n";
    assert_eq!(
        printed("lines", &[lines, "echo \"$v\""]),
        ["1\n2\n", "two\nlines\n"]
    );
}

#[test]
fn standard_input_is_empty() {
    assert_eq!(
        printed("stdin", &["cat; read x; echo \"[$x] $?\""]),
        ["[] 1\n"]
    );
}

#[test]
fn a_syntax_error_changes_nothing_and_says_so() {
    let db = db();
    let user = db.user("syntax");
    db.finish(user, "cd /tmp");
    let wrong = db.finish(user, "cd /usr; if then");
    assert_eq!((wrong.why(), wrong.exit_code), ("exit", Some(2)));
    assert!(
        wrong.stderr.as_deref().unwrap().contains("syntax error"),
        "{wrong:?}"
    );
    let open = db.finish(user, "cd /usr\necho 'never closed");
    assert_eq!(open.why(), "exit", "{open:?}");
    assert_eq!(db.finish(user, "pwd").text(), "/tmp\n");
}

#[test]
fn what_replaces_or_kills_the_shell_leaves_the_state_as_it_was() {
    let db = db();
    let user = db.user("replaced");
    db.finish(user, "cd /tmp; a=1");
    let replaced = db.finish(user, "cd /usr; a=2; exec echo replaced");
    assert_eq!(
        (replaced.status.as_str(), replaced.text()),
        ("done", "replaced\n")
    );
    assert_eq!(db.finish(user, "cd /usr; a=2; exec false").why(), "exit");
    assert_eq!(db.finish(user, "cd /usr; a=2; kill -9 $$").why(), "signal");
    assert_eq!(db.finish(user, "pwd; echo $a").text(), "/tmp\n1\n");
}

#[test]
fn a_session_does_not_see_the_workers_environment() {
    let all = printed("environment", &["env | cut -d= -f1 | sort | xargs"]);
    assert!(!all[0].contains("PG_SHELL"), "{all:?}");
    assert!(!all[0].contains("DATABASE"), "{all:?}");
}
