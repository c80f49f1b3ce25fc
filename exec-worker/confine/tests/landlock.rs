//! Landlock for every command: one domain, and what may be done in it.

mod common;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use common::{Session, path};
use confine::Launcher;
use confine::doctor::examine;

/// Counts how many domains can still be entered, one within the other; the kernel allows 16.
const DOMAINS: &str = r#"perl -e '$rules = pack("Q", 1); $fd = syscall(444, $rules, 8, 0);
    $n++ while $fd >= 0 && syscall(446, $fd, 0) == 0; print $n + 0'"#;

#[test]
fn a_command_is_in_one_domain_however_often_it_is_served() {
    let rows = examine(&path(), std::path::Path::new("/tmp")).expect("an answer");
    if !rows.iter().any(|r| r.step == "Landlock" && r.available) {
        println!("skipped: this kernel has no Landlock");
        return;
    }
    let free = std::process::Command::new("setpriv")
        .args(["--no-new-privs", "bash", "-c", DOMAINS])
        .output();
    let free = String::from_utf8(free.expect("perl").stdout).expect("a number");
    let left = free.parse::<u32>().expect("a number") - 1;
    for launcher in [Launcher::serving(path()), Launcher::spawning(path())] {
        let mut session = Session {
            key: Some(1),
            ..Session::new()
        };
        for _ in 0..3 {
            let ran = session.run_by(&launcher, DOMAINS);
            assert_eq!(ran.text(), left.to_string());
        }
        session.programs = Some(vec!["/usr/bin/perl".into()]);
        assert_eq!(session.run_by(&launcher, DOMAINS).text(), left.to_string());
    }
}

/// Connects to the abstract socket whose name is the first argument.
const CONNECT: &str = r#"perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0);
    print connect(S, pack_sockaddr_un("\0$ARGV[0]")) ? "connected" : "refused: $!"' "#;

#[test]
fn no_abstract_socket_of_the_host_is_reached() {
    let name = format!("pg_shell test {}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a listener");
    let reached = std::process::Command::new("/bin/bash")
        .args(["-c", &format!("{CONNECT}'{name}'")])
        .output();
    assert_eq!(reached.expect("perl").stdout, b"connected");
    for launcher in [Launcher::serving(path()), Launcher::spawning(path())] {
        let ran = Session::new().run_by(&launcher, &format!("{CONNECT}'{name}'"));
        assert!(ran.text().starts_with("refused"), "{}", ran.text());
    }
}

#[test]
fn a_command_reaches_its_own() {
    let own = r#"perl -MSocket -e '$name = pack_sockaddr_un("\0own");
        socket(L, AF_UNIX, SOCK_STREAM, 0); bind(L, $name); listen(L, 1);
        if (!fork) { socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, $name) || die; exit }
        accept(A, L) && print "connected"'"#;
    for launcher in [Launcher::serving(path()), Launcher::spawning(path())] {
        assert_eq!(Session::new().run_by(&launcher, own).text(), "connected");
    }
}

#[test]
fn it_writes_where_it_may_and_nowhere_else() {
    for launcher in [Launcher::serving(path()), Launcher::spawning(path())] {
        let ran = Session::new().run_by(
            &launcher,
            "for f in ~ /tmp /dev/shm; do
                mkdir -p $f/a/b && echo x >$f/a/x && mv $f/a/x $f/a/b/y && ln $f/a/b/y $f/z && rm -r $f/a || echo $f
             done
             for d in null zero full random urandom; do : >/dev/$d || echo $d; done
             echo 500 >/proc/self/oom_score_adj && echo >/proc/self/comm && echo done",
        );
        assert_eq!(ran.text(), "done\n");
        let ran = Session::new().run_by(
            &launcher,
            "for f in / /home /dev /etc /usr /usr/bin /usr/lib /proc /run /var; do
                { : >$f/x; } 2>/dev/null && echo $f
             done; echo done",
        );
        assert_eq!(ran.text(), "done\n");
    }
}
