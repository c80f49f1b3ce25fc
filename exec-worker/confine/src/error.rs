//! Everything that can go wrong with a launch.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A step of the launch, in the order in which the helper takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Reading the launch specification.
    Spec,
    /// Making the user, pid, mount, ipc, uts and net namespaces.
    Namespaces,
    /// Mapping the user and group ids.
    IdMap,
    /// Starting the namespace's first process.
    Init,
    /// Joining the command's control group.
    Cgroup,
    /// Setting the hostname.
    Hostname,
    /// Building and entering the private root.
    Root,
    /// Making a network with nothing in it.
    Network,
    /// Restricting the command to the programs that are listed.
    Programs,
    /// Dropping capabilities.
    Capabilities,
    /// Setting `no_new_privs`.
    NoNewPrivs,
    /// Restricting access to files, sockets and signals.
    Landlock,
    /// Making the folder that a command may write, at the level basic.
    Folder,
    /// Installing the seccomp filter.
    Seccomp,
    /// Starting the shell's process.
    Fork,
    /// Handing over descriptors.
    Descriptors,
    /// Setting resource limits.
    Rlimits,
    /// Starting the shell itself.
    Exec,
    /// Mounting the session's files.
    Home,
}

impl Step {
    /// Every step there is.
    pub fn all() -> impl Iterator<Item = Step> {
        // Encoded, a step is its number, and none is left out.
        (0_u8..128).map_while(|number| postcard::from_bytes(&[number]).ok())
    }

    /// What an administrator may do about its failure.
    pub fn hint(self) -> &'static str {
        match self {
            Step::Namespaces | Step::IdMap => {
                "Nothing was run. The server's user must be allowed to make user namespaces: see \
                 user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns, and the container's own seccomp policy. \
                 exec-worker doctor and shell.confinement() tell what this host can do."
            }
            Step::Landlock => {
                "Nothing was run. The level basic needs Linux 6.12 or later with Landlock; strict uses what there is of \
                 it. exec-worker doctor and shell.confinement() tell what this host can do."
            }
            Step::Programs => {
                "Nothing was run. The list of programs holds absolute paths of programs of the system; only the \
                 level strict can keep to one."
            }
            Step::Folder => {
                "Nothing was run. Set TMPDIR to a folder that the server's user may write; that of root is nobody."
            }
            _ => "Nothing was run: a command never runs with less confinement than is required.",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Spec => "reading the launch specification",
            Step::Namespaces => "making namespaces",
            Step::IdMap => "mapping user ids",
            Step::Init => "starting the first process of the namespace",
            Step::Cgroup => "joining the control group",
            Step::Network => "making a network of its own",
            Step::Root => "entering the private root",
            Step::Programs => "restricting the programs",
            Step::Hostname => "setting the hostname",
            Step::Fork => "starting the shell's process",
            Step::Rlimits => "setting resource limits",
            Step::Capabilities => "dropping capabilities",
            Step::NoNewPrivs => "setting no_new_privs",
            Step::Landlock => "entering the Landlock domain",
            Step::Folder => "making the private folder",
            Step::Seccomp => "installing the seccomp filter",
            Step::Descriptors => "handing over descriptors",
            Step::Exec => "starting the shell",
            Step::Home => "mounting the session's files",
        })
    }
}

/// A failure on the caller's side. A failure inside the helper is an [`crate::Ended::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The helper could not be started.
    #[error("cannot start the launcher {path}: {source}")]
    Spawn {
        /// The helper's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call that prepares or watches the launch failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The helper did not say what this host can do.
    #[error(
        "the launcher {0} does not answer; it must be the one that was built with this program"
    )]
    Probe(PathBuf),
    /// A part of the specification cannot be passed to a program.
    #[error("{0}")]
    Invalid(String),
    /// Neither bash nor sh is on this host.
    #[error("no shell found: neither {0}")]
    NoShell(String),
    /// The control groups that an administrator named cannot be used.
    #[error("cannot use the control group {}: {problem}", path.display())]
    Cgroup {
        /// The delegated folder.
        path: PathBuf,
        /// Why not, and what to change.
        problem: String,
    },
    /// The built-in seccomp policy does not compile for this machine.
    #[error("seccomp policy: {0}")]
    Seccomp(String),
}

/// Names the call that failed.
pub(crate) trait Context<T> {
    /// Turns the error into [`Error::System`].
    fn or_cannot(self, what: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn or_cannot(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|e| Error::System {
            what,
            source: e.into(),
        })
    }
}
