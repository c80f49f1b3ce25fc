//! What the doctor says of this host, and of one without user namespaces.

mod common;

use std::fs;
use std::path::Path;

use common::host::{NoUserNamespaces, give, open_folder};
use common::{Session, path};
use confine::doctor::{Row, examine, is_available};
use confine::{Ended, Error, Launcher, Level, Step};

fn row<'a>(rows: &'a [Row], step: &str) -> &'a Row {
    let found = rows.iter().find(|row| row.step == step);
    found.unwrap_or_else(|| panic!("no {step}"))
}

#[test]
fn this_host_runs_what_the_doctor_says_it_does() {
    let folder = open_folder();
    let rows = examine(&path(), folder.path()).expect("an answer");
    for level in Level::ALL {
        let launcher = Launcher::at(level, path(), folder.path()).expect("a launcher");
        let ended = Session::new()
            .run_by(&launcher, "exit 7")
            .outcome
            .report
            .ended;
        match is_available(&rows, level) {
            true => assert_eq!(ended, Ended::Exited(7), "{level}"),
            false => assert!(matches!(ended, Ended::Refused(..)), "{level}: {ended:?}"),
        }
    }
    let left = std::fs::read_dir(folder.path())
        .expect("our own folder")
        .count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[test]
fn without_user_namespaces_strict_refuses_and_basic_works() {
    let (host, folder) = (NoUserNamespaces::new(&path()), open_folder());
    let rows = examine(&host.launcher(), folder.path()).expect("an answer");
    let user = row(&rows, "user namespace");
    assert!(!user.available, "{user:?}");
    assert!(
        user.detail.contains("user.max_user_namespaces = 0"),
        "{user:?}"
    );
    assert!(user.hint.contains("user.max_user_namespaces"), "{user:?}");
    assert!(
        row(&rows, "level strict")
            .detail
            .starts_with("missing: user namespace")
    );
    assert_eq!(
        (
            is_available(&rows, Level::Strict),
            is_available(&rows, Level::Basic)
        ),
        (false, true)
    );
    // Nothing weaker takes its place, however it is started.
    for launcher in [
        Launcher::serving(host.launcher()),
        Launcher::spawning(host.launcher()),
        Launcher::at(Level::Strict, host.launcher(), folder.path()).expect("a launcher"),
    ] {
        let ran = Session::new().run_by(&launcher, "echo ran");
        assert!(
            matches!(
                ran.outcome.report.ended,
                Ended::Refused(Step::Namespaces, _)
            ),
            "{:?}",
            ran.outcome.report
        );
        assert_eq!(ran.text(), "");
    }
    let basic = Launcher::at(Level::Basic, host.launcher(), folder.path()).expect("a launcher");
    assert_eq!(Session::new().run_by(&basic, "echo ran").text(), "ran\n");
}

#[test]
fn a_folder_that_cannot_be_written_is_missed_by_basic_alone() {
    let rows = examine(&path(), Path::new("/proc")).expect("an answer");
    assert!(!row(&rows, "private folder").available);
    assert!(!is_available(&rows, Level::Basic));
    let strict = row(&rows, "level strict");
    assert!(!strict.detail.contains("folder"), "{strict:?}");
}

#[test]
fn session_files_are_strict_s_alone() {
    let folder = open_folder();
    let rows = examine(&path(), folder.path()).expect("an answer");
    let files = row(&rows, "session files");
    assert_eq!(
        (files.strict.as_str(), files.basic.as_str()),
        ("used where there", "not used")
    );
    let layer = folder.path().join("1");
    fs::create_dir_all(layer.join("folder/below")).expect("our own folder");
    give(&layer);
    let launcher = Launcher::serving(path())
        .with_layers(folder.path())
        .expect("an absolute path");
    let mut session = Session {
        layers: Some(vec!["1".into()]),
        ..Session::new()
    };
    let ran = session.run_by(&launcher, "rm -r folder && mkdir folder && ls -A folder");
    match files.available {
        true => assert_eq!((ran.text().as_str(), ran.code()), ("", Some(0))),
        false => assert_ne!(ran.outcome.report.ended, Ended::Exited(0)),
    }
    let host = NoUserNamespaces::new(&path());
    let rows = examine(&host.launcher(), folder.path()).expect("an answer");
    let files = row(&rows, "session files");
    assert_eq!(
        (files.available, files.hint.as_str()),
        (false, "See the user namespace.")
    );
}

#[test]
fn what_is_no_launcher_is_said_to_be_none() {
    for program in ["/bin/true", "/bin/echo"] {
        let answer = examine(Path::new(program), Path::new("/tmp"));
        assert!(matches!(answer, Err(Error::Probe(_))), "{answer:?}");
    }
    let none = examine(Path::new("/nonesuch"), Path::new("/tmp"));
    assert!(matches!(none, Err(Error::Spawn { .. })), "{none:?}");
    let relative = examine(&path(), Path::new("tmp"));
    assert!(matches!(relative, Err(Error::Invalid(_))), "{relative:?}");
}
