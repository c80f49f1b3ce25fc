//! A session's files: what a command finds in its home, what of it is handed on, and what nobody may reach.

mod common;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::host::give;
use common::{Ran, Session, path};
use confine::{Ended, Launcher, Pin, Step};
use tempfile::TempDir;

/// Layers, as a worker's cache has them, and both ways to launch over them.
struct Layers {
    folder: TempDir,
    launchers: [Launcher; 2],
}

impl Layers {
    fn new() -> Layers {
        // The launcher's user may be another than ours.
        let folder = common::host::open_folder();
        let launchers = [Launcher::serving(path()), Launcher::spawning(path())].map(|launcher| {
            launcher
                .with_layers(folder.path())
                .expect("an absolute path")
        });
        Layers { folder, launchers }
    }

    fn add(&self, name: &str) -> PathBuf {
        let layer = self.folder.path().join(name);
        fs::DirBuilder::new()
            .mode(0o777)
            .create(&layer)
            .expect("a layer");
        layer
    }
}

fn session(of: &Layers, layers: &[&str]) -> Session {
    give(of.folder.path());
    Session {
        layers: Some(layers.iter().map(|&name| name.to_owned()).collect()),
        ..Session::new()
    }
}

/// Below an upper folder.
fn below(upper: &OwnedFd, name: &str) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(upper.as_raw_fd().to_string())
        .join(name)
}

fn names(upper: &OwnedFd) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(below(upper, ""))
        .expect("the upper folder")
        .map(|entry| {
            entry
                .expect("a name")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn upper(ran: &Ran) -> &OwnedFd {
    assert!(ran.outcome.report.home_changed, "{}", ran.text());
    ran.upper.as_ref().expect("the folder came with it")
}

#[test]
fn what_is_changed_is_handed_on_and_nothing_else() {
    let layers = Layers::new();
    let (old, new) = (layers.add("1"), layers.add("2"));
    fs::write(old.join("kept"), "kept").unwrap();
    fs::write(old.join("changed"), "old").unwrap();
    fs::write(old.join("removed"), "old").unwrap();
    fs::write(new.join("changed"), "newer").unwrap();
    for launcher in &layers.launchers {
        let mut s = session(&layers, &["2", "1"]);
        let ran = s.run_by(
            launcher,
            "cat changed kept && echo more >>changed && rm removed && echo x >made && ls",
        );
        assert_eq!(ran.text(), "newerkeptchanged\nkept\nmade\n");
        let upper = upper(&ran);
        assert_eq!(names(upper), ["changed", "made", "removed"]);
        assert_eq!(
            fs::read_to_string(below(upper, "changed")).unwrap(),
            "newermore\n"
        );
        assert!(
            fs::symlink_metadata(below(upper, "removed"))
                .unwrap()
                .file_type()
                .is_char_device()
        );
        // Nothing of it is in the layers, and the next command does not see it unless it becomes one.
        assert_eq!(s.run_by(launcher, "cat changed removed").text(), "newerold");
    }
}

#[test]
fn a_folder_that_was_replaced_says_so() {
    let layers = Layers::new();
    let folder = layers.add("1").join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("old"), "old").unwrap();
    for launcher in &layers.launchers {
        let ran = session(&layers, &["1"]).run_by(
            launcher,
            "rm -r folder && mkdir folder && ls -A folder && mv folder other",
        );
        assert_eq!((ran.text().as_str(), ran.code()), ("", Some(0)));
        assert_eq!(names(upper(&ran)), ["folder", "other"]);
    }
}

#[test]
fn a_session_without_files_yet_has_an_empty_home_whose_content_is_handed_on() {
    let layers = Layers::new();
    for launcher in &layers.launchers {
        let ran = session(&layers, &[]).run_by(launcher, "ls -A; echo x >a; mkdir b");
        assert_eq!(ran.text(), "");
        assert_eq!(names(upper(&ran)), ["a", "b"]);
        let ran = session(&layers, &[]).run_by(launcher, "echo x >/tmp/a");
        assert!(!ran.outcome.report.home_changed && ran.upper.is_none());
    }
}

#[test]
fn of_a_home_that_is_nobody_s_to_keep_nothing_is_handed_on() {
    let ran = Session::new().run("echo x >a");
    assert!(!ran.outcome.report.home_changed && ran.upper.is_none());
}

#[test]
fn what_serves_a_session_is_kept_while_its_files_stay_the_same() {
    let layers = Layers::new();
    fs::write(layers.add("1").join("a"), "a").unwrap();
    layers.add("2");
    let launcher = &layers.launchers[0];
    let mut s = session(&layers, &["1"]);
    s.key = Some(7);
    for _ in 0..4 {
        let ran = s.run_by(launcher, "cat a");
        assert!(ran.outcome.report.kept, "{ran:?}");
        assert_eq!(ran.text(), "a");
    }
    let ran = s.run_by(launcher, "echo b >a");
    assert!(!ran.outcome.report.kept);
    assert_eq!(names(upper(&ran)), ["a"]);
    s.layers = Some(vec!["2".into(), "1".into()]);
    fs::write(layers.folder.path().join("2").join("a"), "b").unwrap();
    give(layers.folder.path());
    assert_eq!(s.run_by(launcher, "cat a").text(), "b");
}

#[test]
fn what_is_made_ready_serves_the_next_command_of_its_session_alone() {
    let layers = Layers::new();
    fs::write(layers.add("1").join("a"), "a").unwrap();
    let launcher = &layers.launchers[0];
    let mut s = session(&layers, &["1"]);
    s.key = Some(8);
    let pin: Pin = Arc::new(());
    let waits = Arc::downgrade(&pin);
    launcher.make_ready(8, &s.specify("echo not this"), pin);
    for key in [None, Some(9)] {
        s.key = key;
        assert_eq!(s.run_by(launcher, "cat a").text(), "a");
        assert!(waits.upgrade().is_some(), "taken by {key:?}");
    }
    s.key = Some(8);
    let running = s.start_printing(launcher, "cat a; kill -STOP $$");
    assert!(waits.upgrade().is_none(), "not taken");
    assert_eq!(running.output().bytes, b"a");
}

#[test]
fn what_cannot_be_made_ready_is_refused_when_it_is_asked_for() {
    let layers = Layers::new();
    let launcher = &layers.launchers[0];
    let mut s = session(&layers, &["absent"]);
    s.key = Some(8);
    for _ in 0..3 {
        launcher.make_ready(8, &s.specify("true"), Arc::new(()));
        let ended = s.run_by(launcher, "true").outcome.report.ended;
        assert!(matches!(ended, Ended::Refused(Step::Home, _)), "{ended:?}");
    }
    s.layers = Some(Vec::new());
    assert_eq!(s.run_by(launcher, "echo well").text(), "well\n");
}

#[test]
fn nobody_sees_the_layers_or_the_upper_folder() {
    let layers = Layers::new();
    fs::write(layers.add("1").join("mine"), "mine").unwrap();
    fs::write(layers.add("2").join("another_s"), "another's").unwrap();
    for launcher in &layers.launchers {
        let ran = session(&layers, &["1"]).run_by(
            launcher,
            "ls -A /run /var/empty; cat /run/layers/2/another_s; ls /run/own; echo x >/run/x; umount /run;
             find / -name another_s 2>/dev/null; find / -name mine 2>/dev/null; find / -path /proc -prune -o -name layers -print 2>/dev/null",
        );
        let text = ran.text();
        assert!(!text.contains("another's"), "{text}");
        assert_eq!(text.matches("mine\n").count(), 1, "{text}");
        assert!(ran.upper.is_none());
    }
}

/// Each way to write a file that a command has open for reading only, or may not write where it is.
const WRITE: &str = r#"
import ctypes, fcntl, mmap, os, shutil
libc = ctypes.CDLL(None, use_errno=True)
def reading(path): return os.open(path, os.O_RDONLY)
def again(path): os.write(os.open(f"/proc/self/fd/{reading(path)}", os.O_RDWR), b"ALTERED")
def shared(path): mmap.mmap(reading(path), 8, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0:7] = b"ALTERED"
def later(path):
    at = libc.mmap
    at.restype, at.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    where = at(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, reading(path), 0)
    if libc.mprotect(ctypes.c_void_p(where), 4096, 3) == 0: ctypes.memmove(where, b"ALTERED", 7)
def opened(path): os.write(os.open(path, os.O_RDWR), b"ALTERED")
def linked(path): os.link(path, path + "-link"); opened(path + "-link")
def cut(path): os.truncate(path, 1)
def metadata(path):
    fd = reading(path)
    os.fchmod(fd, 0o777); os.utime(fd, (1, 1)); os.setxattr(fd, "user.altered", b"y")
def marked(path):
    for name in ("opaque", "metacopy", "redirect", "origin"): os.setxattr(path, "user.overlay." + name, b"y")
def flags(path): fcntl.ioctl(reading(path), 0x40086602, b"\x40\0\0\0\0\0\0\0")
def sealed(path): fcntl.ioctl(reading(path), 0x40806685, b"\1\0\0\0\1\0\0\0\0\x10" + bytes(118))
def copied(path): os.copy_file_range(os.open("/etc/passwd", os.O_RDONLY), reading(path), 7)
def cloned(path): fcntl.ioctl(reading(path), 0x40049409, os.open("/etc/passwd", os.O_RDONLY))
def punched(path): os.posix_fallocate(reading(path), 0, 4096)
def moved(path): os.rename("folder", "elsewhere"); opened("elsewhere/f")
def swapped(path): libc.renameat2(-100, path.encode(), -100, b"folder/f", 2)
def mapped(path): os.open(f"/proc/self/map_files/0-1000", os.O_RDWR)
def handled(path): libc.syscall(304, -100, bytes(128), 2)
def all_gone(path): shutil.rmtree("folder")
ways = [again, shared, later, opened, linked, cut, metadata, marked, flags, sealed, copied, cloned, punched, moved, swapped, mapped, handled, all_gone]
for number, way in enumerate(ways):
    try: way(f"f{number}")
    except (OSError, ValueError): pass
print(len(ways))
"#;

#[test]
fn no_way_of_writing_reaches_a_layer() {
    let layers = Layers::new();
    let (old, new) = (layers.add("1"), layers.add("2"));
    fs::create_dir(new.join("folder")).unwrap();
    fs::write(new.join("folder/f"), "original").unwrap();
    for number in 0..18 {
        let name = format!("f{number}");
        fs::write(old.join(&name), "original").unwrap();
        // As merging does it: one file of two layers.
        fs::hard_link(old.join(&name), new.join(&name)).unwrap();
    }
    let seen = || {
        let mut all = Vec::new();
        for folder in [&old, &new, &new.join("folder")] {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let now = fs::symlink_metadata(&path).unwrap();
                let times = (now.mtime(), now.mtime_nsec(), now.ctime(), now.ctime_nsec());
                let content = fs::read(&path).unwrap_or_default();
                all.push((path, now.mode(), now.nlink(), times, content));
            }
        }
        all.sort();
        all
    };
    for launcher in &layers.launchers {
        let mut s = session(&layers, &["2", "1"]);
        let before = seen();
        s.limits.wall = std::time::Duration::from_secs(30);
        let ran = s.run_by(launcher, &format!("/usr/bin/python3 -c '{WRITE}'"));
        assert!(ran.text().ends_with("18\n"), "{}", ran.text());
        assert_eq!(seen(), before);
        assert!(names(upper(&ran)).contains(&"f3".to_owned()));
    }
}

#[test]
fn no_descriptor_leads_below_a_session_s_home() {
    let layers = Layers::new();
    layers.add("1");
    for launcher in &layers.launchers {
        let ran = session(&layers, &["1"]).run_by(
            launcher,
            "for fd in /proc/$$/fd/* /proc/1/fd/* /proc/1/cwd /proc/1/root; do readlink $fd; done;
             ls /proc/1/root/run/layers /proc/$$/root/run/own /proc/$$/cwd/../../run/own; cd /proc/1/root && ls",
        );
        let text = ran.text();
        let leads = |line: &str| line.starts_with("/run") || line == "1" || line == "work";
        assert!(!text.lines().any(leads), "{text}");
    }
}

#[test]
fn the_limit_on_disk_holds_for_the_upper_folder() {
    let layers = Layers::new();
    fs::write(layers.add("1").join("a"), vec![1; 1 << 20]).unwrap();
    for launcher in &layers.launchers {
        let mut s = session(&layers, &["1"]);
        s.limits.disk_bytes = 4 << 20;
        let ran = s.run_by(
            launcher,
            "echo x >>a; head -c 8M /dev/zero >b; ls -s b | cut -d' ' -f1",
        );
        let blocks: u64 = ran.text().lines().last().unwrap().parse().unwrap();
        assert!(blocks < 3 << 10, "{}", ran.text());
    }
}

#[test]
fn a_list_of_programs_holds_for_the_session_s_files() {
    let layers = Layers::new();
    let program = layers.add("1").join("program");
    fs::copy("/bin/true", &program).unwrap();
    for launcher in &layers.launchers {
        let mut s = session(&layers, &["1"]);
        assert_eq!(s.run_by(launcher, "./program").code(), Some(0));
        s.programs = Some(vec!["/usr/bin/cat".into()]);
        assert_eq!(s.run_by(launcher, "./program").code(), Some(126));
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let layers = Layers::new();
    layers.add("1");
    for launcher in &layers.launchers {
        for name in [
            "..",
            ".",
            "",
            "1/..",
            "1:2",
            "1,upperdir=/tmp",
            "nonesuch",
            &"x".repeat(65),
        ] {
            let ran = session(&layers, &[name]).run_by(launcher, "true");
            let Ended::Refused(step, why) = &ran.outcome.report.ended else {
                panic!("{name}: {:?}", ran.outcome);
            };
            assert_eq!(*step, Step::Home, "{name}: {why}");
        }
    }
}
