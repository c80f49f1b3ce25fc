//! Lying: about the end of a command, its output or its state; and breaking those who listen.

use serde_json::json;

use crate::harness::{Session, WAYS, Way, bash, perl, perl_command, wall_seconds, world};

#[test]
fn pid_1_of_the_namespace() {
    world().withstands(&[
        perl(
            "every signal",
            &format!(
                r#"
for my $signal (1 .. 64) {{ kill $signal, 1; call({tgkill}, 1, 1, $signal) }}
my $fd = call({pidfd_open}, 1, 0); allowed('pidfd_open', $fd); call({pidfd_send}, $fd, $_, 0, 0) for 1 .. 64;
for (1 .. 2000) {{ kill 'CHLD', 1 }}
print "PID 1 is gone\n" unless kill 0, 1; denied('its descriptors', call({pidfd_getfd}, $fd, 3, 0));
"#,
                tgkill = libc::SYS_tgkill,
                pidfd_open = libc::SYS_pidfd_open,
                pidfd_send = libc::SYS_pidfd_send_signal,
                pidfd_getfd = libc::SYS_pidfd_getfd,
            ),
        ),
        perl(
            "its limits, its share of the processor, its affinity",
            &format!(
                r#"
my $none = pack('Q2', 0, 0); my $idle = pack('l', 0); my $one = "\1" . "\0" x 7; my $attr = pack('LLQlLQ3', 48, 5, 0, 0, 0, 0, 0, 0);
for my $resource (0 .. 15) {{ fails("limit $resource", 'EPERM', call({prlimit64}, 1, $resource, $none, 0)) }}
fails('what its limits are', 'EPERM', call({prlimit64}, 1, 7, 0, my $old = "\0" x 16));
fails('policy', 'EPERM', call({setscheduler}, 1, 5, $idle)); fails('attributes', 'EPERM', call({setattr}, 1, $attr, 0));
fails('parameters', 'EPERM', call({setparam}, 1, $idle));
fails('nice', 'EPERM', call({setpriority}, 0, 1, 19)); fails('nice of all', 'EPERM', call({setpriority}, 2, 0, 19));
fails('affinity', 'EPERM', call({setaffinity}, 1, 8, $one));
fails('input and output', 'EPERM', call({ioprio_set}, 1, 1, 3 << 13)); fails('all input and output', 'EPERM', call({ioprio_set}, 3, 1000, 3 << 13));
allowed('my own limit', call({prlimit64}, 0, 4, $none, 0)); allowed('my own nice', call({setpriority}, 0, 0, 5));
allowed('my own affinity', call({setaffinity}, 0, 8, $one)); allowed('my own policy', call({setscheduler}, 0, 5, $idle));
allowed('my own input and output', call({ioprio_set}, 1, 0, 3 << 13));
"#,
                prlimit64 = libc::SYS_prlimit64,
                setscheduler = libc::SYS_sched_setscheduler,
                setattr = libc::SYS_sched_setattr,
                setparam = libc::SYS_sched_setparam,
                setpriority = libc::SYS_setpriority,
                setaffinity = libc::SYS_sched_setaffinity,
                ioprio_set = libc::SYS_ioprio_set,
            ),
        ),
        bash(
            "an end that is told wrong",
            // Without descriptors PID 1 could not wait, and said that the command had never run.
            "prlimit --pid 1 --nofile=0:0 2>/dev/null; prlimit --pid 1 --cpu=1:1 2>/dev/null
             (sleep 0.01 & echo $! > /tmp/orphan); while [[ -d /proc/$(</tmp/orphan) ]]; do :; done",
        ),
    ]);
}

/// However PID 1 is slowed down, the deadline is kept.
#[test]
fn a_deadline_put_off() {
    let slow = "{ chrt -i -p 0 1; taskset -p 1 1; renice 19 1; prlimit --pid 1 --rttime=1:1; } >/dev/null 2>&1
      for i in {1..40}; do (taskset -p 1 $BASHPID >/dev/null; while :; do :; done) & done; wait";
    for way in WAYS {
        let began = std::time::Instant::now();
        let seen = Session::new(world(), way, &[wall_seconds(1)]).run(slow);
        assert!(
            seen.exit.is_some_and(|code| code >= 124),
            "{way:?}: {seen:?}"
        );
        assert!(
            began.elapsed().as_secs() < 10,
            "{way:?}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn reports_and_launches() {
    world().withstands(&[
        perl(
            "every descriptor that could be the control socket",
            &format!(
                r#"
for my $fd (3 .. 1023) {{ denied("send to $fd", call({sendto}, $fd, my $report = "0000", 4, 0x4000, 0, 0)) }}
socketpair(my $a, my $b, AF_UNIX, SOCK_SEQPACKET, 0);
allowed('a socket of mine', call({sendto}, fileno $a, my $report = "0000", 4, 0x4000, 0, 0));
"#,
                sendto = libc::SYS_sendto
            ),
        ),
        bash(
            "launching another",
            "denied pg-shell-launch; denied ls /usr/lib/postgresql/*/lib/pg-shell-launch.none
             exe=$(compgen -G '/usr/lib/postgresql/*/lib/pg-shell-launch') && denied timeout 5 $exe serve
             denied /proc/1/exe; denied /proc/1/exe serve; allowed /proc/self/exe --version",
        ),
    ]);
}

#[test]
fn output_pipes() {
    world().withstands(&[
        perl(
            "flags, size and the other end",
            &format!(
                r#"
for my $fd (1, 2) {{
  allowed('flags', call({fcntl}, $fd, 4, 04000 | 02000 | 020000)); call({fcntl}, $fd, 1031, $_) for 4096, 1 << 20, 1 << 30, 0;
  call({fcntl}, $fd, 10, 9); call({fcntl}, $fd, 8, $$);
  open my $end, '+<', "/proc/self/fd/$fd" or die; call({fcntl}, fileno $end, 4, 04000);
  syswrite $end, "stolen"; sysread $end, my $bytes, 100; close $end;
}}
call({fcntl}, 1, 4, 0); call({fcntl}, 2, 4, 0); allowed('written', call({write}, 1, my $nothing = '', 0));
"#,
                fcntl = libc::SYS_fcntl,
                write = libc::SYS_write
            )
            // Who is faster, the thief or the reader, is not the question.
            .replace("syswrite $end, \"stolen\"; ", ""),
        ),
    ]);
    for way in WAYS {
        let steal = perl_command(
            "if (!fork) { open my $end, '<', '/proc/self/fd/1'; 1 while sysread $end, my $x, 1 }
             for (1 .. 2000) { syswrite STDOUT, \"line\\n\" }",
        );
        let seen = Session::new(world(), way, &[]).run(&steal);
        assert_eq!(
            seen.exit,
            Some(0),
            "a thief of one's own output, {way:?}: {seen:?}"
        );
        let bytes = "printf 'a\\0b\\xff\\xfe\\xed\\xa0\\x80\\x1b[2J\\x1b]0;t\\a\\r\\n\\u202e%s' 'pg_shell end'; printf '\\0pg_shell state 1\\0' >&2";
        let seen = Session::new(world(), way, &[]).run(bytes);
        assert_eq!(seen.exit, Some(0), "{way:?}: {seen:?}");
        assert!(seen.output.contains("\u{1b}[2J"), "{way:?}: {seen:?}");
    }
    world().is_untouched();
}

/// The state that this command leaves is what the text says, in `State`'s own words.
fn forged(cwd: &str, declared: &str, functions: &str) -> String {
    format!(
        "builtin trap - EXIT; printf '%b' 'pg_shell state 1\\0000bash\\0000{cwd}\\00000022\\0000\\0000\\0000\\0000\\0000{declared}\\0000{functions}\\0000\\0000pg_shell end\\0000' >&250"
    )
}

#[test]
fn a_state_that_is_garbage_harms_its_own_session_alone() {
    let world = world();
    let db = world.cluster.db();
    let (attacker, neighbour) = (world.user(&db), world.user(&db));
    let victim = db.session(neighbour);
    db.wait(db.submit_to(
        neighbour,
        victim,
        "cd /tmp; export KEPT=well; kept() { echo kept; }",
    ));
    let others = || -> String {
        let sql = "select string_agg(concat_ws(' ', id, cwd, env, shell_state), ',' order by id) from shell.environments as e where user_id = $1";
        db.one(sql, &[&neighbour])
    };
    let before = others();

    let mut attacks: Vec<String> = [
        "head -c 100000 /dev/urandom >&250",
        "head -c 5000000 /dev/zero >&250",
        "builtin trap - EXIT; yes 'pg_shell state 1' | head -c 4194304 >&250",
        "perl -e 'open F, \">&=250\"; sysseek F, 1 << 40, 0; syswrite F, \"x\"'",
        "perl -e 'open F, \">&=250\"; sysseek F, (1 << 62), 0'; builtin trap - EXIT",
        "perl -e 'open F, \">&=250\"; truncate F, 0; truncate F, 1 << 40; print F \"x\"'",
        "exec 250>&-",
        "exec 250>/dev/full",
        "exec 250</dev/zero",
        "exec 250>/proc/self/comm",
        "exec 251</dev/zero 249</dev/zero",
        "__pg_shell_save='echo hijacked; exit 9'; __pg_shell_options0=a:b; __pg_shell_code=7",
        "readonly __pg_shell_code __pg_shell_flags __pg_shell_save SHELLOPTS",
        "builtin() { echo hijacked; }; declare() { cat /dev/zero; }; printf() { :; }; export -f builtin",
        "trap 'kill -9 $$' EXIT; cd /tmp",
        "enable -n builtin printf declare alias pwd umask",
        "set -n",
        "shopt -s extdebug; set -T; trap 'exit 9' DEBUG",
    ]
    .map(String::from)
    .into();
    for cwd in [
        "/etc/../../..",
        "relative",
        "",
        "/proc/1/root",
        "/tmp\\0012",
        "/\\0377",
        &"/x".repeat(3000),
        "/\\0033[2J",
    ] {
        attacks.push(forged(cwd, "", ""));
    }
    for declared in [
        "declare -x =\"x\"",
        "declare -x A=B=\"c\"",
        "declare -x \"A B\"=\"c\"",
        "declare -x A\\0012B=\"c\"",
        "declare -x A",
        "declare",
        "declare -x A=\"unterminated",
        "declare -x A=\"\\\\u0000\"",
        "declare -x A=\"\\0001\\0002\\0177\\0377\"",
        "declare -- A=\"$(exit)\"",
        "declare -x LD_PRELOAD=\"/tmp/x.so\"",
        "declare -x BASH_ENV=\"/tmp/x\"",
        "declare -x PATH=\"\"",
        "declare -x SHELLOPTS=\"noexec\"",
        "declare -x __pg_shell_save=\"exit 9\"",
        "declare -ar BASH_VERSINFO=([0]=\"9\")",
        "declare -x IFS=\"x\"",
        "declare -ri UID=\"0\"",
        "exit 9",
        "kill -9 $$",
        "while :; do :; done",
    ] {
        attacks.push(forged("/tmp", declared, ""));
    }
    for functions in [
        "builtin() { echo hijacked; }",
        "exit 9",
        "}",
        "f() {",
        "cat /etc/shadow",
        "exec 250>&-",
        "printf 'pg_shell end\\0000' >&250",
        "echo() { :; }\\0012declare -fx echo",
    ] {
        attacks.push(forged("/tmp", "", functions));
    }
    attacks.push(forged("/tmp", &"declare -x A=\"b\"\\0012".repeat(3000), ""));
    attacks.push(format!(
        "big=$(head -c 1040000 /dev/zero | tr '\\0' '\\1'); {}",
        forged("/tmp", "declare -x A=\"'\"$big\"'\"", "")
    ));

    // All are under way at once, so that results of several are written in one statement.
    db.limit(attacker, "wall_seconds", 3);
    let limit = "update shell.sandboxes set output_bytes = 1000 where owner_id = $1";
    db.query(limit, &[&attacker]);
    let mut rows = Vec::new();
    for attack in &attacks {
        let session = db.session(attacker);
        let forging = db.submit_to(attacker, session, attack);
        rows.push((
            attack,
            forging,
            db.submit_to(attacker, session, "pwd; /bin/echo next"),
        ));
        rows.push((
            attack,
            forging,
            db.submit_to(neighbour, victim, "kept; echo $KEPT; pwd"),
        ));
    }
    for (attack, forging, next) in rows {
        let (forging, next) = (db.wait(forging), db.wait(next));
        // It may have been put back before it began; what began has ended once.
        assert_ne!(
            forging.failure.as_deref(),
            Some("worker_lost"),
            "{attack}: {forging:?}\n{}",
            world.worker.log()
        );
        if next.output.as_deref() != Some("kept\nwell\n/tmp\n") {
            let of_neighbour: bool = db.one(
                "select user_id = $2 from shell.commands where id = $1",
                &[&next.id, &neighbour],
            );
            assert!(!of_neighbour, "{attack}: {next:?}");
        }
        assert!(!next.text().contains(crate::harness::SECRET));
        assert_ne!(
            next.failure.as_deref(),
            Some("worker_lost"),
            "{attack}: {next:?}"
        );
    }
    assert_eq!(others(), before, "the neighbour's sessions");
    let sql = "select env::jsonb from shell.environments where id = $1";
    let env: serde_json::Value = db.one(sql, &[&victim]);
    assert_eq!(env, json!({"KEPT": "well"}));
    world.is_untouched();

    // The control: what is forged well is believed, and by its own session alone.
    let session = db.session(attacker);
    let good = forged("/tmp", "declare -x FORGED=\"yes\"", "");
    assert_eq!(
        db.wait(db.submit_to(attacker, session, &good)).exit_code,
        Some(0)
    );
    let told = db.wait(db.submit_to(attacker, session, "pwd; echo $FORGED"));
    assert_eq!(told.text(), "/tmp\nyes\n", "{told:?}");
}

#[test]
fn variables_that_could_break_the_launch() {
    let world = world();
    let mut variables = vec![
        json!({"LD_PRELOAD": "/tmp/x.so", "LD_AUDIT": "/tmp/y.so", "LD_LIBRARY_PATH": "/tmp"}),
        json!({"LD_SHOW_AUXV": "1", "LD_BIND_NOW": "1", "LD_PROFILE": "libc.so.6", "LD_PROFILE_OUTPUT": "/tmp"}),
        json!({"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.mxfast=x=glibc.malloc.mxfast=x", "MALLOC_CHECK_": "3"}),
        json!({"BASH_ENV": "/proc/1/environ", "ENV": "/etc/passwd", "BASHOPTS": "x", "SHELLOPTS": "noexec:xtrace"}),
        json!({"PS4": "$(touch /tmp/x)", "PROMPT_COMMAND": "exit 9", "IFS": "ehco alivn/", "POSIXLY_CORRECT": "1"}),
        json!({"BASH_XTRACEFD": "250", "BASH_COMPAT": "1", "BASH_LOADABLES_PATH": "/tmp", "EXECIGNORE": "*"}),
        json!({"BASH_FUNC_trap%%": "() { echo hijacked; }", "BASH_FUNC_builtin%%": "() { :; }", "BASH_FUNC_x%%": "() { :; }; exit 9"}),
        json!({"__pg_shell_save": "exit 9", "__pg_shell_code": "9", "__pg_shell_traps": "exit 9", "__pg_shell_command": "exit 9"}),
        json!({"HOME": "/proc/1/root", "PWD": "/root", "OLDPWD": "relative", "TMPDIR": "/proc", "SHLVL": "99999999999999999999", "PATH": "/nowhere"}),
        json!({"LC_ALL": "../../../../tmp/x", "LANG": "x".repeat(5000), "LOCPATH": "/tmp", "LANGUAGE": "x", "CHARSET": "x", "NLSPATH": "/tmp/%N"}),
        json!({"A B": "1", "A\nB": "2", "a;exit 9": "3", "$(exit 9)": "4", "`exit 9`": "5", "\u{1}\u{7f}": "6", "é\u{202e}": "7", " ": "8", "-n": "9", "'": "\"", "\\": "\\"}),
        json!({"A": "'; exit 9; '", "B": "$(exit 9)", "C": "\n\n\nexit 9\n", "D": "\\", "E": "\u{10ffff}\u{feff}", "IFS": "'\\\n$(exit 9)"}),
        json!({"x".repeat(100_000): "1"}),
        json!({"A": "x".repeat(120_000)}),
    ];
    let many: serde_json::Map<_, _> = (0..5000)
        .map(|i| (format!("V{i}"), json!("x".repeat(100))))
        .collect();
    variables.push(many.into());
    for way in WAYS {
        for env in &variables {
            let mut session = Session::new(world, way, &[]);
            session.env = env.clone();
            let seen = session.run("/bin/echo alive");
            let shown: String = env.to_string().chars().take(200).collect();
            assert!(
                seen.output.contains("alive\n"),
                "{shown}, {way:?}: {seen:?}"
            );
            assert_eq!(seen.exit, Some(0), "{shown}, {way:?}: {seen:?}");
            assert!(
                !seen.output.contains("hijacked"),
                "{shown}, {way:?}: {seen:?}"
            );
        }
        let mut session = Session::new(world, way, &[]);
        session.env = json!({"MINE": "'\"$x\n"});
        let control = session.run("printf %s \"$MINE\"");
        assert_eq!(control.output, "'\"$x\n", "{way:?}");
    }
    world.is_untouched();
}

#[test]
fn variables_that_cannot_be() {
    let world = world();
    let db = world.cluster.db();
    let user = world.user(&db);
    let session = db.session(user);
    for bad in [
        json!({"": "x"}),
        json!({"A=B": "x"}),
        json!({"=": "x"}),
        json!({"A": 1}),
        json!({"A": null}),
        json!({"A": ["x"]}),
        json!(["A"]),
        json!("A"),
        json!(null),
    ] {
        let sql = "select shell.run_command('/tmp', $1, 'echo never')";
        assert_eq!(db.refused(sql, &[&bad]).code, "PS011", "{bad}");
        let sql = "update shell.environments set env = $2::jsonb where id = $1";
        let code = db.refused(sql, &[&session, &bad]).code;
        assert!(code.starts_with("23"), "{bad}: {code}");
    }
    // No shell can set this one, and the kernel passes none that is so long.
    let long = json!({"odd.name": "x".repeat(200_000)});
    let refused = db.refused(
        "select shell.run_command('/tmp', $1, 'echo never')",
        &[&long],
    );
    assert!(refused.code.starts_with("PS01"), "{refused:?}");
    db.query(
        "update shell.environments set env = $2::jsonb where id = $1",
        &[&session, &long],
    );
    let command = db.wait(db.submit_to(user, session, "echo never"));
    assert_eq!(
        (command.why(), command.output_bytes.unwrap_or(0)),
        ("refused", 0),
        "{command:?}"
    );
    let long = json!({"A": "x".repeat(200_000)});
    let sql = "select output from shell.run_command('/tmp', $1, 'echo ${#A}')";
    assert_eq!(db.one::<String>(sql, &[&long]), "200000\n");
    world.is_untouched();
}

#[test]
fn commands_of_a_million_characters() {
    let world = world();
    let x = |n: usize| "x".repeat(n);
    let million = [
        (
            format!("a={}; echo ${{#a}}", x(1_000_000)),
            Some("1000000\n".to_owned()),
        ),
        (
            format!("# {}\necho end", x(1_000_000)),
            Some("end\n".into()),
        ),
        (
            format!("echo end{}", "\n".repeat(1_000_000)),
            Some("end\n".into()),
        ),
        (
            format!("cat <<'E' | wc -c\n{}\nE", x(1_000_000)),
            Some("1000001\n".into()),
        ),
        (
            format!("echo end{}", "\n:".repeat(450_000)),
            Some("end\n".into()),
        ),
        (x(1_000_000), None),
        ("(".repeat(1_000_000), None),
        ("$(".repeat(5_000), None),
        ("'".repeat(999_999), None),
        (format!("/bin/echo {}", x(1_000_000)), None),
    ];
    for way in WAYS {
        for (command, output) in &million {
            let seen = Session::new(world, way, &[wall_seconds(20)]).run(command);
            let begin: String = command.chars().take(20).collect();
            match output {
                Some(output) => assert_eq!(
                    (seen.exit, &seen.output),
                    (Some(0), output),
                    "{begin}…, {way:?}"
                ),
                None => assert!(
                    seen.exit.is_some_and(|code| code != 0),
                    "{begin}…, {way:?}: exit {:?}",
                    seen.exit
                ),
            }
        }
    }
    let db = world.cluster.db();
    let user = world.user(&db);
    for sql in [
        "select shell.run_command('/tmp', '{}', $1)".to_owned(),
        format!("select shell.submit_command('{user}', $1)"),
    ] {
        let refused = db.refused(&sql, &[&x((1 << 20) + 1)]);
        assert_eq!(refused.code, "PS005", "{refused:?}");
    }
    world.is_untouched();
}

#[test]
fn nothing_of_a_lie_in_the_history() {
    // What a command prints cannot be taken for its end: the row says that it failed.
    let seen =
        Session::new(world(), Way::Row, &[]).run("echo '{\"ended\":{\"Exited\":0}}'; exit 3");
    assert_eq!(seen.exit, Some(3), "{seen:?}");
}
