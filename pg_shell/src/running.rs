//! The command that this backend runs, which never outlives what it was run for.
//!
//! It is kept where an exiting backend finds it. An ERROR (cancel, `statement_timeout`) unwinds, and
//! [`Command`] is dropped; FATAL (`pg_terminate_backend`, the postmaster's death) runs no destructor, and
//! the callback that is registered here ends the command instead. Should the backend be killed outright,
//! the kernel closes its end of the control socket, and PID 1 ends everything.
//!
//! The launcher is started by a backend's first command and serves it for life.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use confine::cgroup::{Cgroup, Setting};
use confine::{Launcher, Level, Outcome, Output, Running, Spec};
use pgrx::prelude::*;

use crate::error::Error;
use crate::settings;

/// Descriptors that a launch uses at its height, rounded up.
const DESCRIPTORS: usize = 24;
/// How often a command that says nothing is looked at, in milliseconds.
const PATIENCE: i64 = 1000;

/// How long the processes of a command that is given up may take to end, before nobody waits for it.
const END_PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static LAUNCHER: RefCell<Option<Started>> = const { RefCell::new(None) };
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
    static WILL_END_AT_EXIT: Cell<bool> = const { Cell::new(false) };
}

/// A launcher, with what it was started with.
struct Started {
    path: PathBuf,
    cgroup: Setting,
    level: Level,
    launcher: Launcher,
}

/// The running command. Dropping it kills whatever is left of it, and waits for that.
pub struct Command {
    _descriptors: Descriptors,
}

impl Command {
    /// Starts it.
    pub fn start(launcher: &Path, cgroup: &Setting, spec: &Spec) -> Result<Command, Error> {
        end_at_exit();
        let command = Command {
            _descriptors: Descriptors::reserve()?,
        };
        RUNNING.set(Some(start(launcher, cgroup, spec)?));
        Ok(command)
    }

    /// Waits until it has ended, obeying interrupts meanwhile.
    pub fn wait(&self) -> Result<(Outcome, Output), Error> {
        loop {
            let (socket, outcome) = RUNNING.with_borrow_mut(|running| {
                let running = running.as_mut().expect("set by start, taken by drop");
                (
                    running.as_raw_fd(),
                    running
                        .pump()
                        .map(|done| done.map(|o| (o, running.take_output()))),
                )
            });
            let outcome = outcome.map_err(|source| Error::System {
                what: "read the command's output",
                source,
            })?;
            if let Some(ended) = outcome {
                return Ok(ended);
            }
            wait_for(socket);
            check_for_interrupts!();
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(running) = RUNNING.take() {
            running.end(END_PATIENCE);
        }
    }
}

/// Starts it with the launcher of this backend. What served a role's command may serve its next one.
fn start(path: &Path, cgroup: &Setting, spec: &Spec) -> Result<Running, confine::Error> {
    // SAFETY: reads a variable of this backend.
    let role = unsafe { pg_sys::GetUserId() };
    let level = settings::level();
    LAUNCHER.with_borrow_mut(|started| {
        if let Some(other) = started
            && (other.path != path || other.cgroup != *cgroup || other.level != level)
        {
            *started = None;
        }
        let launcher = match started {
            Some(same) => &same.launcher,
            None => {
                // The server's own processes are in the backend's group; it stays where it is.
                let groups = Cgroup::of(cgroup, false)?;
                let launcher =
                    Launcher::at(level, path.to_owned(), &std::env::temp_dir())?.within(groups);
                let fresh = Started {
                    path: path.to_owned(),
                    cgroup: cgroup.clone(),
                    level,
                    launcher,
                };
                &started.insert(fresh).launcher
            }
        };
        Running::start(launcher, Some(role.to_u32().into()), spec, None)
    })
}

/// Waits until the command has something to say, or somebody something for this backend.
fn wait_for(socket: i32) {
    let events = pg_sys::WL_LATCH_SET
        | pg_sys::WL_SOCKET_READABLE
        | pg_sys::WL_TIMEOUT
        | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this backend's own, and the socket is open as long as the command is kept.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket,
            PATIENCE,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Registers the callback, once in the life of a backend.
fn end_at_exit() {
    #[pg_guard]
    unsafe extern "C-unwind" fn end(_code: i32, _argument: pg_sys::Datum) {
        // Borrowed only while it is pumped, and nothing exits in there.
        let _ =
            RUNNING.try_with(|running| running.try_borrow_mut().map(|mut running| running.take()));
        // Its control groups are removed with it.
        let _ =
            LAUNCHER.try_with(|started| started.try_borrow_mut().map(|mut started| started.take()));
    }
    if !WILL_END_AT_EXIT.replace(true) {
        // SAFETY: the callback needs no argument, and this library is never unloaded.
        unsafe { pg_sys::before_shmem_exit(Some(end), pg_sys::Datum::from(0)) };
    }
}

/// Descriptors taken out of Postgres' own budget, so that it closes files of its own to make room.
struct Descriptors(usize);

impl Descriptors {
    fn reserve() -> Result<Descriptors, Error> {
        let mut reserved = Descriptors(0);
        while reserved.0 < DESCRIPTORS {
            // SAFETY: counts in this backend, and may close files that Postgres can open again.
            if !unsafe { pg_sys::AcquireExternalFD() } {
                return Err(Error::Descriptors);
            }
            reserved.0 += 1;
        }
        Ok(reserved)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        for _ in 0..self.0 {
            // SAFETY: gives back one of those that were acquired.
            unsafe { pg_sys::ReleaseExternalFD() };
        }
    }
}
