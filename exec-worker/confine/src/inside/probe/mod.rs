//! Trying each step of `doctor::STEPS`, for real, each in a child of its own that ends with it.

mod group;
mod namespace;
mod privilege;
mod program;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, fork, getppid, pipe2};

use super::{Failure, close_from, namespaces, standard};
use crate::doctor::{Found, STEPS};

/// The argument that makes the helper try the steps and write what it found to its standard output, JSON.
/// The next argument is the folder for temporary files.
pub const PROBE: &str = "probe";

/// The whole of the helper; returns its exit code.
pub fn run(temporary: Option<OsString>) -> i32 {
    let library = program::library();
    let ready = close_from(library.first_free()).and_then(|()| {
        // As every launch does; what root could do says nothing about a command's steps.
        if Uid::effective().is_root() {
            namespaces::become_nobody()?;
        }
        Ok(())
    });
    let temporary = temporary.unwrap_or_default();
    let doctor = getppid().as_raw() as u32;
    let found: Vec<Found> = STEPS
        .iter()
        .map(|step| match &ready {
            Ok(()) => apart(|| try_step(step.name, &temporary, &library, doctor)),
            Err((at, why)) => Err(format!("{at}: {why}")),
        })
        .collect();
    let text = serde_json::to_vec(&found).unwrap_or_default();
    let written = standard(1)
        .try_clone_to_owned()
        .map(File::from)
        .and_then(|mut out| out.write_all(&text));
    i32::from(written.is_err())
}

fn try_step(name: &str, temporary: &OsStr, library: &program::Library, doctor: u32) -> Found {
    match name {
        "descriptors" => privilege::descriptors(),
        "user namespace" => namespace::user(),
        "id map" => namespace::id_map(),
        "pid namespace" => namespace::other(nix::sched::CloneFlags::CLONE_NEWPID),
        "mount namespace" => namespace::other(nix::sched::CloneFlags::CLONE_NEWNS),
        "ipc namespace" => namespace::other(nix::sched::CloneFlags::CLONE_NEWIPC),
        "uts namespace" => namespace::other(nix::sched::CloneFlags::CLONE_NEWUTS),
        "network namespace" => namespace::other(nix::sched::CloneFlags::CLONE_NEWNET),
        "loopback" => namespace::loopback(),
        "private root" => namespace::private_root(),
        "proc of its own" => namespace::proc(),
        "session files" => namespace::session_files(),
        "private folder" => program::private_folder(temporary),
        "child subreaper" => privilege::subreaper(),
        "Landlock" => privilege::landlock(),
        "Landlock scopes" => privilege::landlock_scopes(),
        "control group" => group::delegated(doctor),
        "capabilities" => privilege::capabilities(),
        "no_new_privs" => privilege::no_new_privs(),
        "resource limits" => privilege::resource_limits(),
        "seccomp" => privilege::seccomp(),
        "shell" => program::shell(),
        "waiting bash" => program::waiting_bash(library),
        other => Err(format!("nobody knows how to try {other}")),
    }
}

/// Runs it in a child, so that what it does to its process is gone with it.
fn apart(step: impl FnOnce() -> Found) -> Found {
    let (mut answer, tell) = pipe2(OFlag::O_CLOEXEC)
        .map(|(answer, tell)| (File::from(answer), File::from(tell)))
        .map_err(|e| e.to_string())?;
    // SAFETY: the process has one thread.
    match unsafe { fork() }.map_err(|e| e.to_string())? {
        ForkResult::Child => {
            drop(answer);
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let _ = (&tell).write_all(&postcard::to_stdvec(&step()).unwrap_or_default());
            // SAFETY: ends the process at once; nothing is buffered.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut bytes = Vec::new();
            let _ = answer.read_to_end(&mut bytes);
            let ended = waitpid(child, None);
            postcard::from_bytes(&bytes).unwrap_or_else(|_| match ended {
                Ok(status) => Err(format!("what tried it ended: {status:?}")),
                Err(e) => Err(e.to_string()),
            })
        }
    }
}

/// A failure of one of the launch's own steps, as a sentence's end.
fn told((_, why): Failure) -> String {
    why
}

/// What the system said, or that it was done.
fn done<T, E: std::fmt::Display>(result: Result<T, E>) -> Found {
    result.map(|_| "done".into()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_tried() {
        let library = program::Library::NONE;
        for step in STEPS {
            let found = apart(|| try_step(step.name, "/tmp".as_ref(), &library, 0));
            if let Err(why) = found {
                assert!(!why.contains("nobody knows"), "{why}");
            }
        }
    }
}
