//! What survives from one command to the next, every case that the design names.

mod common;

use common::Session;
use confine::Ended;

fn after(commands: &[&str]) -> String {
    Session::new().text(commands)
}

#[test]
fn a_command_prints_and_exits() {
    let ran = Session::new().run("echo hello; exit 3");
    assert_eq!(
        (ran.text().as_str(), ran.code()),
        ("hello\n", Some(3)),
        "{ran:?}"
    );
}

#[test]
fn cwd_and_exported_variables_survive() {
    let mut s = Session::new();
    s.run("cd /tmp && export GREETING=hello");
    assert_eq!(s.cwd, "/tmp");
    assert_eq!(
        s.env.iter().collect::<Vec<_>>(),
        [(&"GREETING".to_owned(), &"hello".to_owned())]
    );
    assert_eq!(
        s.text(&["echo \"$GREETING from $(pwd)\" | tr a-z A-Z"]),
        "HELLO FROM /TMP\n"
    );
}

#[test]
fn unset_survives_even_of_what_every_session_has() {
    assert_eq!(
        after(&[
            "export A=1",
            "unset A LC_CTYPE",
            "echo \"[${A-none}] [${LC_CTYPE-none}]\""
        ]),
        "[none] [none]\n"
    );
}

#[test]
fn unexported_variables_and_arrays_survive() {
    assert_eq!(
        after(&[
            "x=1; a=(one 'two  three'); declare -i n=4",
            "n+=1; echo $x \"${a[1]}\" $n"
        ]),
        "1 two  three 5\n"
    );
}

#[test]
fn functions_aliases_options_and_umask_survive() {
    assert_eq!(after(&["f() { echo \"f $1\"; }", "f x"]), "f x\n");
    assert_eq!(
        after(&["g() { echo exported; }; export -f g", "bash -c g"]),
        "exported\n"
    );
    assert_eq!(after(&["alias hi='echo hi there'", "hi"]), "hi there\n");
    assert_eq!(
        after(&[
            "set -o pipefail; shopt -s nullglob",
            "false | true; echo $?; echo /nothing*"
        ]),
        "1\n\n"
    );
    assert_eq!(after(&["umask 077", "umask"]), "0077\n");
    assert_eq!(after(&["set -x", "echo traced"]), "+ echo traced\ntraced\n");
    assert_eq!(
        after(&["set -u", "echo ${nothing}; echo not reached"]),
        "bash: line 1: nothing: unbound variable\n"
    );
    assert_eq!(
        after(&["cd /usr; cd /tmp", "cd - >/dev/null; pwd"]),
        "/usr\n"
    );
}

#[test]
fn state_survives_exit_and_errexit() {
    assert_eq!(after(&["x=1; cd /usr; exit 3", "echo $x $PWD"]), "1 /usr\n");
    assert_eq!(
        after(&["y=2; set -e; false; echo not reached", "set +e; echo $y"]),
        "2\n"
    );
}

#[test]
fn a_users_exit_trap_runs_and_the_state_survives_it() {
    let mut s = Session::new();
    let ran = s.run("x=1; trap 'echo bye $?; x=2' EXIT; cd /usr; exit 4");
    assert_eq!(
        (ran.text().as_str(), ran.code()),
        ("bye 4\n", Some(4)),
        "{ran:?}"
    );
    assert_eq!(s.text(&["echo $x $PWD"]), "2 /usr\n");

    let ran = s.run("trap 'echo once; exit 9' EXIT; z=5");
    assert_eq!(
        (ran.text().as_str(), ran.code()),
        ("once\n", Some(9)),
        "{ran:?}"
    );
    assert_eq!(s.text(&["echo $z; trap"]), "5\n");
    assert_eq!(
        s.text(&["trap 'echo a' EXIT; trap -p EXIT; trap - EXIT; trap"]),
        "trap -- 'echo a' EXIT\n"
    );
    assert_eq!(
        s.text(&["(trap 'echo sub' EXIT; true); echo main"]),
        "sub\nmain\n"
    );
}

#[test]
fn scripts_of_many_lines_and_here_documents() {
    assert_eq!(
        after(&[
            "cat <<'E' > /tmp/x\n$literal\nE\nx=$(cat /tmp/x)",
            "echo \"$x\""
        ]),
        "$literal\n"
    );
    assert_eq!(after(&["for i in 1 2\ndo\n  echo $i\ndone"]), "1\n2\n");
    assert_eq!(
        after(&["shopt -s extglob\ncase abc in !(x)) echo ok;; esac"]),
        "ok\n"
    );
}

#[test]
fn a_syntax_error_changes_nothing_and_says_so() {
    for wrong in [
        "x=2; if then",
        "x=2\ncd /tmp\nfi",
        "echo 'open",
        "x=2\ncat <((",
    ] {
        let mut s = Session::new();
        s.run("x=1; cd /usr");
        let ran = s.run(wrong);
        assert_ne!(ran.code(), Some(0), "{wrong}");
        assert!(
            ran.text().contains("syntax error") || ran.text().contains("unexpected EOF"),
            "{wrong}: {}",
            ran.text()
        );
        assert_eq!(s.text(&["echo $x $PWD"]), "1 /usr\n", "{wrong}");
    }
}

#[test]
fn exec_kill_and_timeout_leave_the_state() {
    let mut s = Session::new();
    s.run("x=1");
    assert_eq!(s.run("x=2; exec echo replaced").text(), "replaced\n");
    assert_eq!(
        s.run("x=3; kill -9 $$").outcome.report.ended,
        Ended::Signaled(9)
    );
    s.limits.wall = std::time::Duration::from_millis(200);
    assert_eq!(
        s.run("x=4; sleep 1000").outcome.report.ended,
        Ended::TimedOut
    );
    s.limits.wall = std::time::Duration::from_secs(10);
    assert_eq!(s.text(&["echo $x"]), "1\n");
}

#[test]
fn options_that_trip_a_script_do_not_lose_the_state() {
    for option in [
        "-e", "-u", "-f", "-x", "-v", "-C", "-o posix", "-a", "-b", "-T", "-E",
    ] {
        let mut s = Session::new();
        s.run(&format!("set {option}"));
        s.run("x=1; export Y=2");
        assert!(
            s.run("echo $x $Y").text().lines().any(|line| line == "1 2"),
            "{option}: {s:?}"
        );
    }
    assert_eq!(
        after(&["IFS=:; PATH=/nonexistent", "x=1", "echo \"$x$IFS\""]),
        "1:\n"
    );
    assert_eq!(
        after(&[
            "export POSIXLY_CORRECT=1 BASH_ENV=/nonexistent PS4='> '",
            "x=1",
            "echo $x $BASH_ENV $PS4"
        ]),
        "1 /nonexistent >\n"
    );
}

#[test]
fn odd_values_come_back_exactly() {
    let mut s = Session::new();
    s.run(r#"export A=$'tab\there\nnew "quoted" \\ back $dollar `tick` ünï 😀' B=$'\xff\x01' C= D="'"; a=([7]=$'\n)"' x)"#);
    assert_eq!(
        s.env["A"],
        "tab\there\nnew \"quoted\" \\ back $dollar `tick` ünï 😀"
    );
    assert_eq!(
        s.text(&[
            "printf %s \"$B\" | od -An -tx1; echo \"[$C][$D][${a[7]}]\"; bash -c 'echo ${#B}'"
        ]),
        " ff 01\n[][']\u{5b}\n)\"]\n2\n"
    );
}

/// Values made of what quoting may stumble over, the same in each run.
fn hostile_values(count: usize) -> Vec<String> {
    const PARTS: &[&str] = &[
        "'",
        "\"",
        "\\",
        "$",
        "`",
        "\n",
        "\r",
        "\t",
        " ",
        "!",
        "(",
        ")",
        "{",
        "}",
        ";",
        "&",
        "|",
        "#",
        "=",
        "~",
        "*",
        "?",
        "[",
        "\u{1}",
        "\u{7f}",
        "\u{1b}",
        "é",
        "😀",
        "\u{85}",
        "a",
        "0",
        "$'",
        "'\\''",
        "$(exit 9)",
        "\\\n",
        "x00",
        "u0000",
        "}\n",
        " () \n",
        "declare -x A=",
        "pg_shell end",
    ];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % most as u64) as usize
    };
    (0..count)
        .map(|_| (0..next(12)).map(|_| PARTS[next(PARTS.len())]).collect())
        .collect()
}

/// What bash itself makes of the scripts: it prints what it was given, and gives back what it had.
#[test]
fn any_value_reaches_bash_and_comes_back_exactly() {
    let values = hostile_values(2000);
    for launcher in [
        confine::Launcher::serving(common::path()),
        confine::Launcher::spawning(common::path()),
    ] {
        for values in values.chunks(500) {
            let mut s = Session::new();
            for (i, value) in values.iter().enumerate() {
                s.env.insert(format!("V{i:03}"), value.clone());
            }
            // By the script in either way, and not by the environment.
            for (name, value) in ["PS4", "IFS", "ENV"].into_iter().zip(values) {
                s.env.insert(name.into(), value.clone());
            }
            let before = s.env.clone();
            let ran = s.run_by(
                &launcher,
                "p() { printf '%s\\0' \"${!1}\"; }
                 for ((i = 0; i < 500; i++)); do printf -v name V%03d \"$i\"; p \"$name\"; done
                 p ENV; p IFS; p PS4; unset -f p; unset i name",
            );
            let mut printed: Vec<&[u8]> = ran.output.bytes.split(|&c| c == 0).collect();
            assert_eq!(printed.pop(), Some(&b""[..]));
            let mut wanted: Vec<_> = before.iter().filter(|(n, _)| n.starts_with('V')).collect();
            wanted.extend(before.iter().filter(|(n, _)| !n.starts_with('V')));
            assert_eq!(printed.len(), wanted.len());
            for (printed, (name, value)) in printed.into_iter().zip(wanted) {
                assert_eq!(String::from_utf8_lossy(printed), *value, "{name}");
            }
            assert_eq!(s.env, before);
        }
    }
}

#[test]
fn a_missing_working_directory_does_not_stop_a_session() {
    let mut s = Session::new();
    s.cwd = "/tmp/gone".into();
    let ran = s.run("pwd");
    assert_eq!(
        ran.text(),
        "pg_shell: /tmp/gone: No such file or directory; starting in /home/sandbox\n/home/sandbox\n"
    );
}

#[test]
fn a_long_command_is_run_whole() {
    let mut s = Session::new();
    let ran = s.run(&format!("x='{}'\necho ${{#x}}; x=", "a".repeat(900_000)));
    assert_eq!(ran.text(), "900000\n");
    assert!(s.shell_state.len() < 1000);
}

#[test]
fn sh_keeps_what_it_can() {
    let mut s = Session::new();
    s.shell = confine::shell::Shell::Sh;
    s.run("cd /usr; export A=\"it's\"; alias hi='echo hi'; umask 027; set -u; exit 3");
    assert_eq!(s.env["A"], "it's");
    assert_eq!(
        s.text(&["hi; pwd; umask; echo \"$A\""]),
        "hi\n/usr\n0027\nit's\n"
    );
}

/// No program is started with such a variable, but the shell, which can unset it.
#[test]
fn a_variable_too_long_for_programs_does_not_stop_a_session() {
    for launcher in [
        confine::Launcher::serving(common::path()),
        confine::Launcher::spawning(common::path()),
    ] {
        for shell in [confine::shell::Shell::Bash, confine::shell::Shell::Sh] {
            let mut s = Session::new();
            s.shell = shell;
            let ran = s.run_by(
                &launcher,
                "export LONG=$(head -c 200000 /dev/zero | tr '\\0' \\')",
            );
            assert_eq!(ran.text(), "");
            let ran = s.run_by(&launcher, "echo ${#LONG}; ls; unset LONG; ls /nothing");
            let text = ran.text();
            assert!(text.starts_with("200000\n"), "{text}");
            assert!(text.contains("Argument list too long"), "{text}");
            assert!(text.contains("No such file or directory"), "{text}");
            assert_eq!(s.run_by(&launcher, "echo ${#LONG}").text(), "0\n");
        }
    }
}

#[test]
fn what_is_named_like_a_builtin_does_not_stand_in_for_it() {
    for define in [
        "umask() { echo wrong; }; alias() { echo wrong; }",
        "alias umask='echo wrong' alias='echo wrong'",
    ] {
        let define = format!("{define}; builtin umask 027; builtin alias hi='echo hi'");
        assert_eq!(after(&[&define, "builtin umask; hi"]), "0027\nhi\n");
    }
}

#[test]
fn functions_with_extended_patterns_survive() {
    let define =
        "shopt -s extglob\nf() { case $1 in !(a|b)) echo other;; esac; }\nalias hi='echo hi'";
    assert_eq!(
        after(&[define, "f c; hi; shopt extglob"]),
        "other\nhi\nextglob        \ton\n"
    );
    let off = format!("{define}\nshopt -u extglob");
    assert_eq!(
        after(&[&off, "type -t f; hi; shopt extglob"]),
        "function\nhi\nextglob        \toff\n"
    );
}

#[test]
fn a_trap_that_prints_does_not_lose_the_state() {
    for launcher in [
        confine::Launcher::serving(common::path()),
        confine::Launcher::spawning(common::path()),
    ] {
        for trap in ["ERR", "DEBUG", "RETURN"] {
            let mut s = Session::new();
            s.run_by(
                &launcher,
                &format!("set -ET; trap 'echo trapped' {trap}; false; x=1"),
            );
            assert_eq!(s.run_by(&launcher, "echo $x").text(), "1\n", "{trap}");
        }
    }
}

#[test]
fn a_read_only_variable_of_the_shell_survives() {
    assert_eq!(
        after(&[
            "cd /usr; cd /tmp; readonly OLDPWD",
            "echo $OLDPWD",
            "readonly -p | grep OLDPWD"
        ]),
        "declare -rx OLDPWD=\"/usr\"\n"
    );
    assert_eq!(
        after(&["cd /usr; cd /tmp; readonly OLDPWD", "echo $OLDPWD"]),
        "/usr\n"
    );
}

/// The worker, or a backend, reads it with nobody to interrupt it.
#[test]
fn a_state_of_countless_options_is_read_in_no_time() {
    let options = |name: &str| format!("{name}:").repeat(400_000);
    let fields = [
        "pg_shell state 1",
        "bash",
        "/tmp\n",
        "0022\n",
        &options("a"),
        &options("b"),
        &options("c"),
        &options("d"),
        "",
        "",
        "",
        "pg_shell end",
        "",
    ];
    let started = std::time::Instant::now();
    let state = confine::shell::State::read(
        fields.join("\0").as_bytes(),
        &std::collections::BTreeMap::new(),
    );
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(state.expect("a state").cwd, "/tmp");
}
