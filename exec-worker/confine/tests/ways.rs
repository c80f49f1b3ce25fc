//! A bash that waited for its command, one that was forked ahead of it, and one that was executed for it: a
//! command cannot tell them apart.

mod common;

use common::{Session, path};
use confine::Launcher;

/// What a command could look at, each a command of its own.
const QUESTIONS: &[&str] = &[
    "echo $$ $PPID $BASHPID $SHLVL $- $0 $# $BASH_SUBSHELL $? [$*] $UID $BASH_EXECUTION_STRING",
    "declare -p | grep -vE '__pg_shell|RANDOM|SECONDS|EPOCH|BASH_ENV|BASH_BUILTIN|LINENO|_=|FUNCNAME'",
    "env | sort",
    "set -o; shopt; umask; ulimit -a",
    "trap; trap -p; alias; declare -F; jobs; hash; dirs",
    "grep -E '^(Cap|NoNewPrivs|Seccomp:|Sig|Shd|Uid|Gid|Groups|Threads)' /proc/$$/status",
    "grep -E '^(Cap|NoNewPrivs|Seccomp:|Sig|Shd|Uid|Gid|Groups)' /proc/self/status",
    "echo /proc/$$/fd/*",
    "ls -l /proc/self/fd | sed 's/.* [0-9:]* \\([0-9]* ->\\)/\\1/; s/[0-9]*]$//' | grep -v /proc",
    "set -x; true; eval 'echo x'; f() { echo $1; }; f 2; (echo 3)",
    "nonesuch; echo $?; cd /nonesuch; . /nonesuch; ${x?unset}",
    "readonly r=1; r=2; echo not reached",
    "a=1\nif then\n",
    "echo one\necho two; nonesuch\ncat <<E\n$LINENO here\nE\n",
    "cat <(echo by process); read -r x < <(echo inside); echo $x; coproc cat; echo ${COPROC[0]}",
    "set -m; sleep 0 & wait; jobs; set +m; kill -0 $$; echo $?",
    "kill -TERM $$; echo not reached",
    "kill -9 $$",
    "set -u; echo $nonesuch",
    "exit 7",
    "exec sh -c 'echo replaced $$ $PPID'",
    "trap 'echo bye $?' EXIT; trap 'echo hup' HUP; kill -HUP $$; exit 3",
    "(exit 4); echo $? ${PIPESTATUS[@]}; false | true; echo ${PIPESTATUS[@]}",
    "ps -o pid=,ppid=,pgid=,sid=,tty= -p $$; cat /proc/$$/comm",
    "caller; echo ${BASH_SOURCE[@]} ${FUNCNAME[@]} $LINENO",
    "pwd; pwd -P; cd ..; pwd; cd -; echo ~ $OLDPWD",
    "true >&250 2>&1; echo $?; read -t 0 <&3; echo $?",
    "yes | head -1; printf '%s\\n' \"$IFS\" | od -c; locale 2>/dev/null | head -3",
    "echo é | wc -m; [[ é == ? ]] && echo one; type -t cd; compgen -v | grep -c . >/dev/null",
];

fn answers(launcher: &Launcher, session: &Session) -> Vec<String> {
    QUESTIONS
        .iter()
        .map(|question| {
            let ran = session.clone().run_by(launcher, question);
            let state = ran.state.map(|s| (s.cwd, s.env, s.shell_state));
            format!(
                "{question}\n{}{:?}\n{state:#?}",
                String::from_utf8_lossy(&ran.output.bytes),
                ran.outcome.report.ended,
            )
        })
        .collect()
}

fn compare(session: &Session) {
    let (waiting, executed) = (Launcher::serving(path()), Launcher::spawning(path()));
    let waited = session
        .clone()
        .run_by(&waiting, "tr '\\0' ' ' </proc/$$/cmdline");
    assert_eq!(
        String::from_utf8_lossy(&waited.output.bytes),
        "bash -c : bash ",
        "build the builtin first: cargo build -p confine-bash"
    );
    let pairs = answers(&waiting, session)
        .into_iter()
        .zip(answers(&executed, session));
    for (waited, executed) in pairs {
        assert_eq!(waited, executed);
    }
    compare_ahead(session, &executed);
}

/// The same for a shell that was forked before its command was there, which has another number.
fn compare_ahead(session: &Session, executed: &Launcher) {
    let ahead = Launcher::serving(path());
    let served = Session {
        key: Some(1),
        ..session.clone()
    };
    let without_numbers = |q: &&&str| !q.contains("$$") && !q.contains("coproc");
    for question in QUESTIONS.iter().filter(without_numbers) {
        for _ in 0..3 {
            served.clone().run_by(&ahead, "true");
        }
        let [waited, executed] = [(&served, &ahead), (session, executed)].map(|(session, by)| {
            let ran = session.clone().run_by(by, question);
            let state = ran.state.map(|s| (s.cwd, s.env, s.shell_state));
            let text = String::from_utf8_lossy(&ran.output.bytes).into_owned();
            (text, ran.outcome.report.ended, state)
        });
        assert_eq!(waited, executed, "{question}");
    }
}

#[test]
fn in_a_new_session() {
    compare(&Session::new());
}

#[test]
fn in_a_session_that_remembers() {
    let mut session = Session::new();
    session.run(
        "export A='it'\\''s' PATH=/usr/bin PS4='> ' LC_ALL=C; B=2; declare -i I=3; declare -a L=(1 '2 3')
         cd /usr/lib; f() { echo $B; }; alias ll='ls -l'; set -f; shopt -s extglob nullglob; umask 077
         export -f f; declare -x",
    );
    compare(&session);
}

#[test]
fn variables_that_only_a_start_takes_over() {
    let mut session = Session::new();
    for (name, value) in [
        ("a-b", "1"),
        ("UID", "5"),
        ("BASH_FUNC_g%%", "() {  echo g\n}"),
    ] {
        session.env.insert(name.into(), value.into());
    }
    let by = |launcher: Launcher| {
        let ran = session
            .clone()
            .run_by(&launcher, "env | grep -a a-b; echo $UID; g");
        String::from_utf8_lossy(&ran.output.bytes).into_owned()
    };
    let waiting = by(Launcher::serving(path()));
    assert_eq!(waiting, by(Launcher::spawning(path())));
    assert!(waiting.contains("a-b=1"), "{waiting}");
}

#[test]
fn random_numbers_differ_from_command_to_command() {
    let launcher = Launcher::serving(path());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let ran = Session::new().run_by(&launcher, "echo $RANDOM$RANDOM$RANDOM");
        assert!(seen.insert(ran.output.bytes), "drawn before");
    }
}

#[test]
fn the_builtin_waits_for_nobody_else() {
    let ran = Session::new().run_by(&Launcher::serving(path()), "__pg_shell_wait; echo $?");
    assert_eq!(String::from_utf8_lossy(&ran.output.bytes), "1\n");
}
