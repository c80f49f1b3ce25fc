//! The domains of the level basic.

use std::path::Path;

use landlock::{ABI, Access, AccessFs, BitFlags};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::folder::{HOME, TMP};
use crate::error::Step;
use crate::inside::landlock::{Rules, landlock_abi, writing};
use crate::inside::root::{DEVICES, ETC, SYSTEM};
use crate::inside::{At, Failure};

/// The version of Landlock that scopes signals and abstract sockets. Nothing less will do.
const SCOPES: u32 = 6;

/// What programs read of `/etc` that is the sandbox's own at the level strict.
const NAMES: [&str; 3] = ["passwd", "group", "nsswitch.conf"];

/// This process is in a domain that scopes signals: who can be sent one is in there too.
#[derive(Clone, Copy)]
pub(in crate::inside) struct Domain(());

impl Domain {
    /// Enters one that restricts nothing else.
    pub(in crate::inside) fn enter() -> Result<Domain, Failure> {
        require()?;
        let everywhere = Rules::new(BitFlags::EMPTY)?.allow(Path::new("/"), writing())?;
        everywhere.enter()?;
        // Whoever kills all that it can had better know that this is so.
        match kill(getppid(), None::<Signal>) {
            Err(Errno::EPERM) => Ok(Domain(())),
            other => Err((
                Step::Landlock,
                format!("signals are not kept from the parent: {other:?}"),
            )),
        }
    }

    /// Kills every process of the domain and of those within but this one, at once: no fork outruns it.
    pub(super) fn end_everything(self) {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
}

fn require() -> Result<(), Failure> {
    match landlock_abi() {
        Some(version) if version >= SCOPES => Ok(()),
        Some(version) => Err((
            Step::Landlock,
            format!("the level basic needs version {SCOPES}, and this kernel has {version}"),
        )),
        None => Err((Step::Landlock, "this kernel has none, or it is off".into())),
    }
}

/// The command's: the system can be read and executed, the folders in `private` are its own, and nothing else
/// is there.
pub(super) fn files(private: &Path) -> Result<Rules, Failure> {
    let mut rules = Rules::new(AccessFs::from_all(ABI::V5))?;
    let read = |path: &Path| match path.is_dir() {
        true => AccessFs::from_read(ABI::V5),
        false => AccessFs::ReadFile.into(),
    };
    let system = SYSTEM.iter().map(|name| format!("/{name}"));
    let etc = ETC.iter().chain(&NAMES).map(|name| format!("/etc/{name}"));
    for path in system.chain(etc) {
        let path = Path::new(&path);
        if path.exists() {
            rules = rules.allow(path, read(path))?;
        }
    }
    for name in DEVICES {
        let device = format!("/dev/{name}");
        rules = rules.allow(Path::new(&device), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for own in [HOME, TMP] {
        rules = rules.allow(&private.join(own), AccessFs::from_all(ABI::V5))?;
    }
    Ok(rules)
}

/// Closes the file system to this process, but for nothing at all.
pub(in crate::inside) fn close_files() -> Result<(), Failure> {
    Rules::new(AccessFs::from_read(ABI::V1))?.enter()?;
    confirm_closed()
}

/// Without this the ruleset would close nothing to whom it is about.
pub(super) fn confirm_closed() -> Result<(), Failure> {
    match std::fs::File::open("/") {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err("the file system is not closed").at(Step::Landlock),
    }
}
