//! The guard: starts the shell, waits for it, and ends every process of the command.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::prctl;

use super::domain::{self, Domain};
use super::folder::Private;
use super::names::Names;
use crate::error::Step;
use crate::inside::init::{self, Watch};
use crate::inside::meter::Whose;
use crate::inside::reap::Reaper;
use crate::inside::start::{drop_outputs, lift, spawn_shell};
use crate::inside::{At, Failure, Launch, hide, privileges, read_spec, send_report, standard};
use crate::report::Report;
use crate::running::STATE_BYTES;
use crate::spec::{HOME, Spec};

/// The guard's life.
pub(super) fn run(control: &OwnedFd, launch: Launch, private: &Private) -> Result<(), Failure> {
    hide()?;
    prctl::set_child_subreaper(true).at(Step::Init)?;
    let domain = Domain::enter()?;
    let watch = Watch::new()?;
    let names = Names::of(private.path());
    let mut spec = names.put_in(&read_spec(launch.spec)?);
    if spec.programs.is_some() {
        return Err((Step::Programs, "only the level strict can".into()));
    }
    let mut state = File::from(lift(&launch.state).at(Step::Descriptors)?);
    drop(launch.state);
    state.rewind().at(Step::Descriptors)?;
    enter_home(&mut spec, &names);

    watch.begin(&spec.limits)?;
    let rules = domain::files(private.path())?;
    let held: OwnedFd = state.try_clone().at(Step::Descriptors)?.into();
    let rules = std::cell::Cell::new(Some(rules));
    let shell = spawn_shell(&spec, &held, || {
        privileges::filter_outer()?;
        rules.take().map_or(Ok(()), |rules| rules.enter())?;
        domain::confirm_closed()?;
        privileges::filter_inner()?;
        privileges::filter_basic()
    });
    // Whatever was started of it ends, should this fail.
    let shell = shell.inspect_err(|_| domain.end_everything())?;
    drop(held);
    drop_outputs();
    let mut reaper = Reaper::new(shell);
    let ended = init::wait(
        &mut reaper,
        control,
        &watch,
        &spec.limits,
        Whose::Descendants,
    );
    domain.end_everything();
    let usage = reaper.collect_everything();
    let ended = ended?;
    if translate(&mut state, &names).is_err() {
        // It has run; what is lost is its state.
        let _ = state.rewind();
    }
    // Before the report: who has it may look for the folder.
    let _ = private.remove();
    let report = Report {
        cpu_us: usage.cpu_us,
        peak_memory_bytes: usage.peak_memory_bytes,
        ..Report::of(ended)
    };
    send_report(control.as_raw_fd(), &report);
    Ok(())
}

/// A working directory that is gone is home, as at the level strict.
fn enter_home(spec: &mut Spec, names: &Names) {
    let path = spec.cwd.to_string_lossy();
    let Err(e) = std::fs::read_dir(&*path) else {
        return;
    };
    let cwd = names.taken_out(spec.cwd.to_bytes());
    let cwd = String::from_utf8_lossy(&cwd);
    let why = e
        .raw_os_error()
        .map_or("", |n| nix::errno::Errno::from_raw(n).desc());
    let word = format!("pg_shell: {cwd}: {why}; starting in {HOME}\n");
    let _ = nix::unistd::write(standard(2), word.as_bytes());
    spec.cwd = names.home();
}

/// The state in the session's words; its end is where the file stands.
fn translate(state: &mut File, names: &Names) -> std::io::Result<()> {
    let written = state.stream_position()?.min(STATE_BYTES as u64);
    state.rewind()?;
    let mut text = Vec::new();
    Read::by_ref(state).take(written).read_to_end(&mut text)?;
    state.rewind()?;
    let mut words = names.taken_out(&text);
    words.truncate(STATE_BYTES);
    state.write_all(&words)?;
    state.seek(SeekFrom::Start(words.len() as u64))?;
    Ok(())
}
