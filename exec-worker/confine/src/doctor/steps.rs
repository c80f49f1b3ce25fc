//! The steps of a confinement, in the order in which the helper takes them, and which level uses which.

use super::Use;
use Use::{NotUsed, Required, WhereThere};

/// A step, as far as it is the same on every host.
pub(crate) struct Step {
    /// Its name.
    pub name: &'static str,
    /// What is tried, and so what it needs.
    pub needs: &'static str,
    /// What an administrator can do where it is not there.
    pub hint: &'static str,
    /// Whether the level `strict` uses it.
    pub strict: Use,
    /// Whether the level `basic` uses it.
    pub basic: Use,
}

const fn step(
    name: &'static str,
    needs: &'static str,
    [strict, basic]: [Use; 2],
    hint: &'static str,
) -> Step {
    Step {
        name,
        needs,
        hint,
        strict,
        basic,
    }
}

const STRICT: [Use; 2] = [Required, NotUsed];
const BASIC: [Use; 2] = [NotUsed, Required];
const BOTH: [Use; 2] = [Required, Required];

/// What is wrong where one kind of namespace is refused and user namespaces are not.
const NAMESPACE: &str = "See this kind's user.max_*_namespaces, the kernel's CONFIG_*_NS, and the container's seccomp policy.";
/// What is wrong where a mount is refused in a user namespace.
const MOUNT: &str = "A container's AppArmor or seccomp policy must allow mounts in user namespaces; Linux 5.12 or later is needed.";

/// See the module.
pub(crate) const STEPS: &[Step] = &[
    step(
        "descriptors",
        "close_range, memfd_create",
        BOTH,
        "Linux 5.9 or later is needed.",
    ),
    step(
        "user namespace",
        "unshare(CLONE_NEWUSER)",
        STRICT,
        "Let this user make user namespaces: user.max_user_namespaces above 0, kernel.unprivileged_userns_clone = 1, \
         kernel.apparmor_restrict_unprivileged_userns = 0, and a container's seccomp policy that allows unshare.",
    ),
    step(
        "id map",
        "writing uid_map and gid_map",
        STRICT,
        "AppArmor's restriction of user namespaces must be off: kernel.apparmor_restrict_unprivileged_userns = 0.",
    ),
    step("pid namespace", "unshare(CLONE_NEWPID)", STRICT, NAMESPACE),
    step("mount namespace", "unshare(CLONE_NEWNS)", STRICT, NAMESPACE),
    step("ipc namespace", "unshare(CLONE_NEWIPC)", STRICT, NAMESPACE),
    step("uts namespace", "unshare(CLONE_NEWUTS)", STRICT, NAMESPACE),
    step(
        "network namespace",
        "unshare(CLONE_NEWNET)",
        STRICT,
        NAMESPACE,
    ),
    step(
        "control group",
        "a cgroup v2 folder that is delegated to who asks, with memory, pids or cpu",
        [WhereThere, WhereThere],
        "Delegate one: under systemd, Delegate=yes in the worker's unit; or name one (--cgroup, pg_shell.cgroup).",
    ),
    step(
        "private root",
        "open_tree, mount_setattr, tmpfs, pivot_root",
        STRICT,
        MOUNT,
    ),
    step(
        "loopback",
        "switching lo on in a network namespace",
        STRICT,
        "The kernel needs CONFIG_INET, and a container's seccomp policy must allow sockets.",
    ),
    step(
        "proc of its own",
        "mounting proc in a user and pid namespace",
        STRICT,
        "A container hides parts of /proc, and then the kernel refuses a new one: run it with an unmasked /proc \
         (Docker: --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked).",
    ),
    step(
        "session files",
        "an overlay over a folder, with its upper folder on a tmpfs; a folder removed and made again",
        // Commands are confined without; what a host lacks for a session's files is refused then.
        [WhereThere, NotUsed],
        "Linux 6.6 or later is needed, with CONFIG_OVERLAY_FS and CONFIG_TMPFS_XATTR. At the level basic home is each \
         command's own, and nothing of it is kept.",
    ),
    step(
        "private folder",
        "a folder made and removed below the temporary folder; openat2",
        BASIC,
        "Set TMPDIR to a folder that this user may write; Linux 5.6 or later is needed.",
    ),
    step(
        "child subreaper",
        "prctl(PR_SET_CHILD_SUBREAPER)",
        BASIC,
        "Linux 3.4 or later is needed.",
    ),
    step(
        "capabilities",
        "giving them up",
        BOTH,
        "Linux 3.2 or later is needed.",
    ),
    step(
        "no_new_privs",
        "prctl(PR_SET_NO_NEW_PRIVS)",
        BOTH,
        "Linux 3.5 or later is needed.",
    ),
    step(
        "Landlock",
        "a ruleset that closes the file system",
        [WhereThere, Required],
        "The kernel needs CONFIG_SECURITY_LANDLOCK, and landlock in the list of lsm= on its command line.",
    ),
    step(
        "Landlock scopes",
        "ABI 6: signals and abstract sockets end at the command",
        [WhereThere, Required],
        "Linux 6.12 or later is needed.",
    ),
    step(
        "seccomp",
        "a filter, on x86-64 or aarch64",
        BOTH,
        "The kernel needs CONFIG_SECCOMP_FILTER.",
    ),
    step(
        "resource limits",
        "setrlimit",
        BOTH,
        "A container's seccomp policy must allow prlimit64.",
    ),
    step("shell", "/bin/bash or /bin/sh", BOTH, "Install bash."),
    step(
        "waiting bash",
        "/bin/bash that loads libpg_shell_bash.so beside the launcher",
        [WhereThere, NotUsed],
        "Commands run without, but start later: install bash, and the library that is built with the launcher.",
    ),
];
