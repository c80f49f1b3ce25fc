//! A sandbox with a list of programs runs these and nothing else: each way round it, and beside it the same
//! command without a list, which gets through. All on a kernel with Landlock, if this is one, and without.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Ran, Session, path};
use confine::doctor::examine;
use confine::shell::Shell;
use confine::{Ended, Launcher, Step};

/// Runs what follows with the ELF loader in `$ld`.
const LOADER: &str = "for ld in /lib64/ld-*.so.* /lib/ld-*.so.*; do [[ -e $ld ]] && break; done; ";

fn listed(programs: &[&str]) -> Session {
    Session {
        programs: Some(programs.iter().map(|&p| p.to_owned()).collect()),
        ..Session::new()
    }
}

/// Both ways to start a launch.
fn launchers() -> [Launcher; 2] {
    [Launcher::serving(path()), Launcher::spawning(path())]
}

/// On this kernel as it is, and as if it had no Landlock.
fn on_both_kernels(test: impl Fn() + Sync) {
    test();
    std::thread::scope(|scope| {
        let without = scope.spawn(|| {
            forget_landlock();
            test();
        });
        without.join().expect("the test's own assertions");
    });
}

/// `command` prints 1000 where it gets through: without a list, and not with this one.
#[track_caller]
fn gets_through_only_without(programs: &[&str], command: &str) {
    on_both_kernels(|| {
        for launcher in launchers() {
            let free = Session::new().run_by(&launcher, command).text();
            assert!(free.contains("1000"), "{command}: without a list: {free}");
            let ran = listed(programs).run_by(&launcher, command);
            assert!(
                matches!(ran.outcome.report.ended, Ended::Exited(_)),
                "{ran:?}"
            );
            assert!(!ran.text().contains("1000"), "{command}: {}", ran.text());
        }
    });
}

#[track_caller]
fn refused(ran: &Ran, what: &str) {
    match &ran.outcome.report.ended {
        Ended::Refused(Step::Programs, why) => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// This thread, and what it starts, find a kernel without Landlock.
fn forget_landlock() {
    let rules = [(libc::SYS_landlock_create_ruleset, Vec::new())];
    let filter: seccompiler::BpfProgram = seccompiler::SeccompFilter::new(
        rules.into(),
        seccompiler::SeccompAction::Allow,
        seccompiler::SeccompAction::Errno(libc::ENOSYS as u32),
        std::env::consts::ARCH.try_into().expect("a known machine"),
    )
    .and_then(TryInto::try_into)
    .expect("a filter");
    nix::sys::prctl::set_no_new_privs().expect("no_new_privs");
    seccompiler::apply_filter(&filter).expect("a filter that holds");
}

#[test]
fn where_there_is_landlock_a_library_is_no_program_either() {
    let run = "for l in /lib/*-linux-*/libc.so.6; do $l >/dev/null && echo 1000; done";
    let rows = examine(&path(), std::path::Path::new("/tmp")).expect("an answer");
    let there = rows.iter().any(|r| r.step == "Landlock" && r.available);
    for launcher in launchers() {
        let free = Session::new().run_by(&launcher, run).text();
        let ran = listed(&[]).run_by(&launcher, run).text();
        if there && free.contains("1000") {
            assert!(ran.contains("Permission denied"), "{ran}");
        }
    }
}

#[test]
fn a_listed_program_runs_and_an_unlisted_one_does_not() {
    on_both_kernels(|| {
        for launcher in launchers() {
            let mut session = listed(&["/usr/bin/id", "/usr/bin/id", "/bin/cat"]);
            let ran = session.run_by(&launcher, "id -u | cat; /usr/bin/id -u");
            assert_eq!(ran.text(), "1000\n1000\n");
            for unlisted in [
                "/usr/bin/uname",
                "uname",
                "exec uname",
                "env uname",
                "sh -c :",
            ] {
                let ran = session.run_by(&launcher, unlisted);
                assert_eq!(ran.code(), Some(126), "{unlisted}: {}", ran.text());
                assert!(ran.text().contains("Permission denied"), "{}", ran.text());
            }
            let ran = session.run_by(&launcher, "uname -s; echo $(id -u)");
            assert!(ran.text().ends_with("denied\n1000\n"), "{}", ran.text());
        }
    });
}

#[test]
fn an_empty_list_leaves_the_shell() {
    on_both_kernels(|| {
        for launcher in launchers() {
            let mut session = listed(&[]);
            let ran = session.run_by(&launcher, "x=1; echo $x; bash -c 'echo $0'; /bin/true");
            assert!(ran.text().starts_with("1\nbash\n"), "{}", ran.text());
            assert_eq!(ran.code(), Some(126));
        }
    });
}

#[test]
fn a_session_with_a_list_remembers() {
    on_both_kernels(|| {
        for launcher in launchers() {
            let mut session = listed(&["/usr/bin/id"]);
            session.key = Some(1);
            let large = "x=1; export Y=2; f() { echo f; }; printf -v large %200000d 7; cd /usr";
            session.run_by(&launcher, large);
            let ran = session.run_by(&launcher, "large=short; echo $x $Y $PWD; f; id -u");
            assert_eq!(ran.text(), "1 2 /usr\nf\n1000\n");
            let ran = session.run_by(&launcher, "echo ${#large}");
            assert_eq!(ran.text(), "5\n");
            assert!(
                !session.shell_state.contains("000007"),
                "nothing of an earlier state"
            );
        }
    });
}

#[test]
fn sh_with_a_list() {
    on_both_kernels(|| {
        for launcher in launchers() {
            let mut session = listed(&["/usr/bin/id"]);
            session.shell = Shell::Sh;
            assert_eq!(
                session.run_by(&launcher, "export X=1; id -u").text(),
                "1000\n"
            );
            assert_eq!(session.run_by(&launcher, "echo $X").text(), "1\n");
            let ran = session.run_by(&launcher, "/usr/bin/uname");
            assert_eq!(ran.code(), Some(126), "{}", ran.text());
        }
    });
}

#[test]
fn libraries_modules_and_data_are_read() {
    on_both_kernels(|| {
        for launcher in launchers() {
            let mut session = listed(&["/usr/bin/perl", "/usr/bin/ls", "/usr/bin/cat"]);
            let perl = "perl -MSocket -MList::Util=sum -e 'print sum(AF_UNIX, 999)'";
            assert_eq!(session.run_by(&launcher, perl).text(), "1000");
            let python = "/usr/bin/python3";
            if std::fs::exists(python).is_ok_and(|there| there) {
                let mut session = listed(&[python]);
                // A library beside its modules.
                let ran = session.run_by(&launcher, "python3 -c 'import _bz2; print(6 * 7)'");
                assert_eq!(ran.text(), "42\n");
            }
            let ran = session.run_by(
                &launcher,
                "ls /usr/bin >/dev/null && cat /etc/passwd | { read -r l; echo $l; }",
            );
            assert!(ran.text().starts_with("root:"), "{}", ran.text());
            let ran = session.run_by(
            &launcher,
            "cat <<<here; cat < <(echo substituted); echo x >/tmp/x; cat /tmp/x /dev/null; cat /proc/self/comm",
        );
            assert_eq!(ran.text(), "here\nsubstituted\nx\ncat\n");
        }
    });
}

#[test]
fn a_link_stands_for_the_program_that_it_leads_to() {
    for launcher in launchers() {
        let mut session = listed(&["/usr/bin/awk"]);
        let ran = session.run_by(&launcher, "awk 'BEGIN { print 1000 }'");
        assert_eq!(ran.text(), "1000\n");
    }
}

#[test]
fn lists_that_cannot_be_had_are_refused() {
    for launcher in launchers() {
        for wrong in [
            "/usr/bin",
            "/usr/bin/nonesuch",
            "/etc/passwd",
            "/home/sandbox/x",
            "/proc/self/exe",
            "relative",
        ] {
            let ran = listed(&["/usr/bin/id", wrong]).run_by(&launcher, "echo ran");
            refused(&ran, wrong);
            assert_eq!(ran.text(), "");
        }
    }
}

#[test]
fn what_served_one_list_serves_no_other() {
    let launcher = Launcher::serving(path());
    let of = |programs: Option<&[&str]>| Session {
        key: Some(1),
        ..programs.map_or_else(Session::new, listed)
    };
    for (programs, allowed) in [
        (None, true),
        (Some(&["/usr/bin/cat"][..]), false),
        (Some(&["/usr/bin/id"][..]), true),
        (Some(&["/usr/bin/id"][..]), true),
        (Some(&[][..]), false),
        (None, true),
    ] {
        let ran = of(programs).run_by(&launcher, "id -u");
        assert_eq!(
            ran.text() == "1000\n",
            allowed,
            "{programs:?}: {}",
            ran.text()
        );
        assert!(ran.outcome.report.kept);
    }
}

#[test]
fn the_loader_runs_no_unlisted_program() {
    gets_through_only_without(&[], &format!("{LOADER}$ld /usr/bin/id -u"));
    gets_through_only_without(
        &["/usr/bin/cat"],
        &format!("{LOADER}exec $ld /usr/bin/id -u"),
    );
}

/// Programs in library folders of this host: of apt, and of whatever is installed.
fn programs_among_libraries() -> Vec<String> {
    let below = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = below("/usr/lib")
        .filter(|e| e.file_name().to_string_lossy().contains("-linux-"))
        .flat_map(|e| below(&e.path().to_string_lossy()))
        .map(|e| e.path().to_string_lossy().into_owned());
    let is_program = |path: &std::path::Path| {
        !path.to_string_lossy().contains(".so")
            && std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 1 != 0)
            && std::fs::read(path).is_ok_and(|content| content.starts_with(b"\x7fELF"))
    };
    folders
        .flat_map(|folder| below(&folder))
        .map(|e| e.path())
        .filter(|path| is_program(path))
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_program_in_a_library_folder_does_not_run() {
    for program in programs_among_libraries().iter().take(3) {
        let run = format!("({program} --help &>/dev/null </dev/null); (($? == 126)) || echo 1000");
        gets_through_only_without(&[], &run);
        let verify = format!("{LOADER}$ld --verify {program} 2>/dev/null && echo 1000");
        gets_through_only_without(&[], &verify);
    }
    for program in programs_among_libraries().iter().take(1) {
        let mut session = listed(&[program]);
        let ran = session.run(&format!(
            "({program} --help &>/dev/null </dev/null); echo $?"
        ));
        assert_ne!(ran.text(), "126\n", "{program} is listed");
    }
}

#[test]
fn a_copy_does_not_run_wherever_it_is() {
    for folder in ["~", "/tmp", "/dev/shm", "/var/tmp"] {
        let copy = format!("cp /usr/bin/id {folder}/x; chmod 755 {folder}/x; ");
        let tools = ["/usr/bin/cp", "/usr/bin/chmod", "/usr/bin/id"];
        gets_through_only_without(&tools, &format!("{copy}{folder}/x -u"));
        gets_through_only_without(&tools, &format!("{copy}{LOADER}$ld {folder}/x -u"));
        gets_through_only_without(
            &tools,
            &format!("{copy}exec 5<{folder}/x; /proc/self/fd/5 -u"),
        );
        gets_through_only_without(
            &tools,
            &format!("{copy}exec 5<{folder}/x; {LOADER}$ld /dev/fd/5 -u"),
        );
    }
}

#[test]
fn the_files_that_the_shell_is_given_hold_no_program() {
    let tools = ["/usr/bin/cat", "/usr/bin/id"];
    gets_through_only_without(
        &tools,
        &format!("cat /usr/bin/id >&250; {LOADER}$ld /proc/self/fd/250 -u"),
    );
}

#[test]
fn the_scripts_of_the_launcher_stay_as_they_are() {
    for launcher in launchers() {
        let mut session = listed(&[]);
        session.shell = Shell::Sh;
        for fd in [249, 251] {
            let write = format!(
                "test -e /proc/self/fd/{fd} && echo there; echo x >>/proc/self/fd/{fd}; echo $?"
            );
            let ran = session.run_by(&launcher, &write);
            assert!(ran.text().starts_with("there\n"), "{}", ran.text());
            assert!(!ran.text().ends_with("\n0\n"), "{}", ran.text());
        }
    }
}

#[test]
fn a_memory_file_holds_no_program() {
    if cfg!(target_arch = "x86_64") {
        let perl = r#"perl -e '$^F = 99; $n = "x"; $fd = syscall(319, $n, 0); die "refused: $!" if $fd < 0;
            open(O, ">&=", $fd); open(I, "<", "/usr/bin/id"); local $/; print O <I>; O->flush();
            exec $ARGV[0], "/proc/self/fd/$fd", "-u";' $ld"#;
        gets_through_only_without(
            &["/usr/bin/perl", "/usr/bin/id"],
            &format!("{LOADER}{perl}"),
        );
    }
}

#[test]
fn an_unlisted_interpreter_does_not_run() {
    gets_through_only_without(&[], "perl -e 'print 1000'");
    let script = "printf '#!/usr/bin/perl\\nprint 1000' >~/s; chmod 755 ~/s; ~/s";
    gets_through_only_without(&["/usr/bin/chmod"], script);
    gets_through_only_without(
        &["/usr/bin/chmod"],
        &format!("{LOADER}$ld /usr/bin/perl -e 'print 1000'"),
    );
    // A listed script needs its interpreter listed too.
    let is_perl = |p: &std::path::PathBuf| {
        std::fs::read(p).is_ok_and(|text| text.starts_with(b"#!/usr/bin/perl"))
    };
    let folder = std::fs::read_dir("/usr/bin").expect("/usr/bin");
    let mut all: Vec<_> = folder.filter_map(|e| Some(e.ok()?.path())).collect();
    all.sort();
    if let Some(script) = all.iter().find(|p| is_perl(p)) {
        let script = script.to_str().expect("a name");
        for launcher in launchers() {
            let ran = listed(&[script]).run_by(&launcher, &format!("{script} --version"));
            assert_eq!(ran.code(), Some(126), "{}", ran.text());
            let mut session = listed(&[script, "/usr/bin/perl"]);
            let ran = session.run_by(&launcher, &format!("{script} --version </dev/null"));
            assert_ne!(ran.code(), Some(126), "{}", ran.text());
        }
    }
}

#[test]
fn scripts_of_the_shell_run_builtins_and_listed_programs_only() {
    let write = "printf 'echo built in; id -u; uname' >~/s; chmod 755 ~/s; ";
    for launcher in launchers() {
        for run in [
            ". ~/s",
            "bash ~/s",
            "BASH_ENV=~/s bash -c :",
            "bash <~/s",
            "source ~/s",
        ] {
            let mut session = listed(&["/usr/bin/chmod", "/usr/bin/id"]);
            let ran = session.run_by(&launcher, &format!("{write}{run}"));
            assert!(
                ran.text().starts_with("built in\n1000\n"),
                "{run}: {}",
                ran.text()
            );
            assert!(
                ran.text().contains("Permission denied"),
                "{run}: {}",
                ran.text()
            );
        }
    }
}

#[test]
fn a_link_in_the_home_leads_to_no_unlisted_program() {
    gets_through_only_without(&["/usr/bin/ln"], "ln -s /usr/bin/id ~/x; ~/x -u");
    gets_through_only_without(
        &["/usr/bin/ln"],
        "cd ~; ln -s /usr/bin bin; PATH=~/bin; id -u",
    );
}

#[test]
fn an_open_descriptor_runs_no_unlisted_program() {
    gets_through_only_without(&[], "exec 5</usr/bin/id; /proc/self/fd/5 -u");
    gets_through_only_without(&[], "cd /usr; /proc/self/cwd/bin/id -u");
    gets_through_only_without(&[], "/proc/self/root/usr/bin/id -u");
}

#[test]
fn the_shell_is_led_to_nothing_else() {
    for way in [
        "command -p id -u",
        "(exec /usr/bin/id -u)",
        "hash -p /usr/bin/id head; head -u",
        "printf '#!/usr/bin/env -S echo 1000\\n' >~/s; chmod +x ~/s; ~/s",
        "mount -o remount,exec /tmp 2>/dev/null; id -u",
    ] {
        gets_through_only_without(&["/usr/bin/head", "/usr/bin/chmod"], way);
    }
}

#[test]
fn no_library_of_its_own_is_loaded() {
    let copy = "for l in /lib/*/libm.so.6 /lib64/libm.so.6; do cp $l ~/own.so && break; done 2>/dev/null; ";
    let tools = ["/usr/bin/cp", "/usr/bin/cat"];
    let preload = format!(
        "{copy}LD_PRELOAD=~/own.so cat /proc/self/maps | while read -r l; do [[ $l == *r-xp*own.so ]] && echo 1000; done"
    );
    gets_through_only_without(&tools, &preload);
    // bash finds no builtin in it, but only once it is loaded.
    let enable = format!("{copy}[[ $(enable -f ~/own.so x 2>&1) == *x_struct* ]] && echo 1000");
    gets_through_only_without(&tools, &enable);
}

#[test]
fn the_memory_of_a_process_is_not_written() {
    gets_through_only_without(&[], "exec 5<>/proc/$$/mem && echo 1000");
    gets_through_only_without(&[], "exec 5<>/proc/self/task/$$/mem && echo 1000");
}
