//! Running a test in a user namespace of its own, where it may mount.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities};

const INSIDE: &str = "PG_SHELL_FILES_TEST_INSIDE";

/// Runs `body` in a user and a mount namespace: this very test, in a process of its own.
pub fn inside(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())),
        ("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())),
    ];
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1");
    let enter = move || {
        // SAFETY: the child has one thread, and shares nothing that a new mount namespace could confuse.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)? };
        maps.iter()
            .try_for_each(|(file, text)| std::fs::write(file, text))
    };
    // SAFETY: between fork and exec it makes system calls; it takes no lock that another thread could hold.
    unsafe { command.pre_exec(enter) };
    let status = command.status().unwrap();
    assert!(
        status.success(),
        "{test}, in a namespace of its own: {status}"
    );
}

/// Runs `body` as what a worker is: the owner of the files, and nothing more.
pub fn without_capabilities<T>(body: impl FnOnce() -> T) -> T {
    let before = capabilities(None).unwrap();
    let mut none = before;
    none.effective = CapabilitySet::empty();
    set_capabilities(None, none).unwrap();
    let result = body();
    set_capabilities(None, before).unwrap();
    result
}
