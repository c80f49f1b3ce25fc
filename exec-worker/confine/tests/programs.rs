//! A sandbox that is restricted to a list of programs: the kernel keeps it, whatever the text says.

mod common;

use common::{Session, path};
use confine::{Ended, Launcher, Step};

fn restricted(programs: &[&str]) -> Session {
    Session {
        programs: Some(programs.iter().map(|p| (*p).to_owned()).collect()),
        ..Session::new()
    }
}

/// Both ways to launch.
fn launchers() -> [Launcher; 2] {
    [Launcher::serving(path()), Launcher::spawning(path())]
}

#[test]
fn what_is_listed_runs_and_nothing_else() {
    for launcher in launchers() {
        let mut session = restricted(&["/usr/bin/id", "/usr/bin/head"]);
        let ran = session.run_by(
            &launcher,
            "id -u; echo built in; head -c 3 /etc/passwd; echo; ls; echo $?; /usr/bin/cat /etc/passwd; echo $?",
        );
        let text = ran.text();
        assert!(text.starts_with("1000\nbuilt in\nroo\n"), "{text}");
        assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
        assert_eq!(text.matches("126").count(), 2, "{text}");
        // Any other session runs what it likes.
        assert_eq!(
            Session::new().run_by(&launcher, "ls /etc/passwd").code(),
            Some(0)
        );
    }
}

#[test]
fn an_empty_list_leaves_the_shell_alone() {
    for launcher in launchers() {
        let mut session = restricted(&[]);
        let ran = session.run_by(
            &launcher,
            "x=1; echo $((x + 1)); true | ls; bash -c 'echo again'",
        );
        assert!(ran.text().starts_with("2\n"), "{}", ran.text());
        assert!(
            ran.text().contains("ls: Permission denied"),
            "{}",
            ran.text()
        );
        assert!(ran.text().ends_with("again\n"), "{}", ran.text());
    }
}

/// Each prints `ran` if it gets a program to run that is not listed.
const WAYS_ROUND: &[&str] = &[
    "for loader in /lib64/ld-linux* /lib/ld-linux* /lib/*-linux-*/ld-linux*; do $loader /usr/bin/uname && echo ran; done",
    "head -c 10000000 /usr/bin/uname >/tmp/u; chmod +x /tmp/u; /tmp/u && echo ran",
    "head -c 10000000 /usr/bin/uname >~/u; chmod +x ~/u; for l in /lib64/ld-linux* /lib/*-linux-*/ld-linux*; do $l ~/u && echo ran; done",
    "head -c 10000000 /usr/bin/uname >/dev/shm/u; chmod +x /dev/shm/u; /dev/shm/u && echo ran",
    "ln -s /usr/bin/uname /tmp/link; /tmp/link && echo ran",
    "exec 9</usr/bin/uname; /proc/self/fd/9 && echo ran",
    "(exec /usr/bin/uname) && echo ran",
    "printf '#!/usr/bin/uname\\n' >/tmp/s; chmod +x /tmp/s; /tmp/s && echo ran",
    "printf '#!/bin/sh\\necho ran\\n' >/tmp/s; chmod +x /tmp/s; /tmp/s",
    "/bin/sh -c 'echo ran'",
    "perl -e 'print \"ran\"'",
    "enable -f /usr/lib/bash/id id && echo ran",
    "LD_PRELOAD=/usr/bin/uname head -c 0 /etc/passwd; LD_LIBRARY_PATH=/usr/bin head -c 0 /etc/passwd",
    "ln -s /usr/bin/uname /usr/bin/head && echo ran",
    "hash -p /usr/bin/uname head; head && echo ran; command -p uname && echo ran",
    "mount -o remount,exec /tmp && echo ran",
];

#[test]
fn there_is_no_way_round_it() {
    for launcher in launchers() {
        for way in WAYS_ROUND {
            let mut session = restricted(&["/usr/bin/head", "/usr/bin/ln", "/usr/bin/chmod"]);
            let ran = session.run_by(&launcher, way);
            assert!(!ran.text().contains("ran\n"), "{way}: {}", ran.text());
            assert!(!ran.text().contains("Linux"), "{way}: {}", ran.text());
        }
        // The controls: each of them would work.
        let free = Session::new()
            .run_by(&launcher, "/bin/sh -c 'echo ran'; uname")
            .text();
        assert_eq!(free, "ran\nLinux\n");
    }
}

#[test]
fn links_lead_to_what_they_name() {
    for launcher in launchers() {
        // On Debian a link to a link to mawk.
        let mut session = restricted(&["/usr/bin/awk"]);
        let ran = session.run_by(&launcher, "awk 'BEGIN { print 6 * 7 }'");
        assert_eq!(ran.text(), "42\n");
    }
}

#[test]
fn what_cannot_be_listed_refuses_the_command() {
    for launcher in launchers() {
        for wrong in ["/nonesuch", "/usr/bin", "relative", "/proc/self/exe/x"] {
            let ran = restricted(&["/usr/bin/id", wrong]).run_by(&launcher, "echo never");
            let Ended::Refused(Step::Programs, why) = &ran.outcome.report.ended else {
                panic!("{wrong}: {:?}", ran.outcome.report);
            };
            assert!(why.contains(wrong), "{why}");
            assert_eq!(ran.text(), "");
        }
    }
}

#[test]
fn a_list_that_changes_is_mounted_anew() {
    let launcher = Launcher::serving(path());
    let mut session = restricted(&["/usr/bin/id"]);
    session.key = Some(1);
    assert_eq!(session.run_by(&launcher, "id -u").text(), "1000\n");
    session.programs = Some(vec![]);
    assert!(session.run_by(&launcher, "id -u").text().contains("denied"));
    session.programs = None;
    assert_eq!(session.run_by(&launcher, "uname").text(), "Linux\n");
}
