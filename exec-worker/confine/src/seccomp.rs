//! The seccomp policy, as data, and its compilation.
//!
//! A deny-list that holds what Docker's default profile denies, x32, and io_uring, keyrings, bpf, perf,
//! userfaultfd, mounts, ptrace and new namespaces. Denied calls answer `EPERM`, so that programs which
//! only ask go on; `clone3`, whose flags a filter cannot see, answers `ENOSYS`, so that libc uses `clone`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

use crate::error::Error;

/// System calls that no command needs, refused whatever their arguments.
const DENIED: &[libc::c_long] = &[
    // Kernel, clock and machine.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Mounts and namespaces.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Handles, other processes' memory and files.
    libc::SYS_kcmp,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Large attack surfaces.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    // NUMA and paging of others.
    libc::SYS_get_mempolicy,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    // x86-64 only.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// `open_tree_attr`, which libc does not name yet; its number is the same everywhere.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// PID 1 of the namespace keeps the deadline and tells how a command ended; it runs as the command's own
/// user, who could take its descriptors or its share of the processor. A call, one of its arguments, and the
/// value that means PID 1, or every process of the user.
const OF_PID_1: &[(libc::c_long, u8, u64)] = &[
    (libc::SYS_prlimit64, 0, 1),
    (libc::SYS_sched_setaffinity, 0, 1),
    (libc::SYS_sched_setattr, 0, 1),
    (libc::SYS_sched_setparam, 0, 1),
    (libc::SYS_sched_setscheduler, 0, 1),
    (libc::SYS_setpriority, 1, 1),
    (libc::SYS_setpriority, 0, 2),
    (libc::SYS_ioprio_set, 1, 1),
    (libc::SYS_ioprio_set, 0, 3),
];

/// The personalities that Docker allows: Linux, its two old versions, 32 bits of it, and the question.
const PERSONALITIES: &[u64] = &[0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// What only PID 1 needs, before its command.
const DENIED_INSIDE: &[libc::c_long] = &[libc::SYS_mount, libc::SYS_umount2];

/// What would hold a program that no list names: files without a place.
const MEMORY_FILES: &[libc::c_long] = &[libc::SYS_memfd_create, libc::SYS_memfd_secret];

/// What the level basic refuses in addition, for there is no view of its own for a command there: System V
/// and POSIX queues, sockets, and whatever changes or watches a file by its path alone, of which Landlock
/// knows nothing. Files that are open, which Landlock has let pass, can be changed so.
const DENIED_IN_BASIC: &[libc::c_long] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    libc::SYS_inotify_add_watch,
    STATMOUNT,
    LISTMOUNT,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

/// Calls that libc does not name everywhere; their numbers are the same on every machine.
const FCHMODAT2: libc::c_long = 452;
const STATMOUNT: libc::c_long = 457;
const LISTMOUNT: libc::c_long = 458;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;
const FILE_SETATTR: libc::c_long = 469;

/// Calls by which a process changes others of its user, and the argument that names them. At the level
/// basic the worker is one of these; 0 is the caller itself.
const OF_OTHERS: &[(libc::c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// The kinds of sockets that come in pairs and can still be sent from to any address.
const UNCONNECTED: &[libc::c_int] = &[libc::SOCK_DGRAM, libc::SOCK_RAW];
/// The part of a socket's type that is no flag.
const SOCKET_TYPE: u64 = 0xf;

/// Flags of `clone` that make a namespace.
const NAMESPACE_FLAGS: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The socket families that a command may use; `AF_ALG`, netlink, packet, vsock and the rest are refused.
const SOCKET_FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Terminal requests that type into somebody else's terminal.
const TERMINAL_REQUESTS: &[libc::c_ulong] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// The policy's two parts. The kernel takes a filter's length times the number of system calls to install
/// it, so nearly all of it is installed once, in what forks for every command.
pub struct Filters {
    /// For whatever makes the namespaces and mounts of commands, and for all its children.
    pub outer: BpfProgram,
    /// What is denied in addition where a command runs.
    pub inner: BpfProgram,
}

/// The compiled policy; compiled once a process.
///
/// # Errors
/// [`Error::Seccomp`] on an architecture that the compiler does not know.
pub fn filters() -> Result<&'static Filters, Error> {
    static FILTERS: OnceLock<Result<Filters, String>> = OnceLock::new();
    match FILTERS.get_or_init(|| compile().map_err(|e| e.to_string())) {
        Ok(filters) => Ok(filters),
        Err(e) => Err(Error::Seccomp(e.clone())),
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn always(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|&call| (call, Vec::new())).collect()
}

fn when(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, length, operator, value)
}

fn inner_rules() -> Result<Rules, BackendError> {
    let mut rules = always(DENIED_INSIDE);
    let mut namespaces = Vec::new();
    for &flag in NAMESPACE_FLAGS {
        let flag = flag as u64;
        namespaces.push(SeccompRule::new(vec![when(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )?])?);
    }
    rules.insert(libc::SYS_clone, namespaces);
    Ok(rules)
}

/// What is refused in addition to a command that may run only the programs of a list.
///
/// # Errors
/// As of [`filters`].
pub(crate) fn memory_files() -> Result<BpfProgram, Error> {
    let compiled = refusing(always(MEMORY_FILES), libc::EPERM);
    compiled.map_err(|e| Error::Seccomp(e.to_string()))
}

/// What the level basic refuses in addition.
///
/// # Errors
/// As of [`filters`].
pub(crate) fn basic() -> Result<BpfProgram, Error> {
    let compiled = basic_rules().and_then(|rules| refusing(rules, libc::EPERM));
    compiled.map_err(|e| Error::Seccomp(e.to_string()))
}

fn basic_rules() -> Result<Rules, BackendError> {
    let mut rules = always(DENIED_IN_BASIC);
    let mut unconnected = Vec::new();
    for &kind in UNCONNECTED {
        let length = SeccompCmpArgLen::Dword;
        let is_kind = when(1, length, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind as u64)?;
        unconnected.push(SeccompRule::new(vec![is_kind])?);
    }
    rules.insert(libc::SYS_socketpair, unconnected);
    // Without a path it is about an open file.
    let by_path = when(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_utimensat, vec![SeccompRule::new(vec![by_path])?]);
    for &(call, argument) in OF_OTHERS {
        let another = when(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![another])?]);
    }
    Ok(rules)
}

fn outer_rules() -> Result<Rules, BackendError> {
    let mut rules = always(DENIED);

    let mut other_families = Vec::new();
    for &family in SOCKET_FAMILIES {
        other_families.push(when(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Ne,
            family as u64,
        )?);
    }
    rules.insert(
        libc::SYS_socket,
        vec![SeccompRule::new(other_families.clone())?],
    );
    rules.insert(
        libc::SYS_socketpair,
        vec![SeccompRule::new(other_families)?],
    );

    for &(call, argument, value) in OF_PID_1 {
        let named = when(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        let of_call = rules.entry(call).or_default();
        of_call.push(SeccompRule::new(vec![named])?);
    }

    let mut other_personalities = Vec::new();
    for &value in PERSONALITIES {
        let other = when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)?;
        other_personalities.push(other);
    }
    rules.insert(
        libc::SYS_personality,
        vec![SeccompRule::new(other_personalities)?],
    );

    let mut terminal = Vec::new();
    for &request in TERMINAL_REQUESTS {
        terminal.push(SeccompRule::new(vec![when(
            1,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            request,
        )?])?);
    }
    rules.insert(libc::SYS_ioctl, terminal);
    Ok(rules)
}

fn refusing(rules: Rules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error as u32),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// On x86-64 a kernel may know every call by a second number, that of x32, which no list here names; the
/// architecture that a filter sees is the same for both. A call number that does not exist answers so too.
fn refuse_other_numbers() -> BpfProgram {
    /// `__X32_SYSCALL_BIT`.
    const FIRST: u32 = 0x4000_0000;
    if !cfg!(target_arch = "x86_64") {
        return BpfProgram::new();
    }
    let instruction = |code: u32, k, jf| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    vec![
        // The call's number is the first thing that a filter is given.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, FIRST, 1),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
            0,
        ),
    ]
}

fn compile() -> Result<Filters, BackendError> {
    // One program for both answers: the first one's last instruction, its "allow", falls away, and whom it
    // would have let through goes on to the second.
    let mut outer = refuse_other_numbers();
    outer.extend(refusing(always(&[libc::SYS_clone3]), libc::ENOSYS)?);
    outer.pop();
    outer.extend(refusing(outer_rules()?, libc::EPERM)?);
    Ok(Filters {
        outer,
        inner: refusing(inner_rules()?, libc::EPERM)?,
    })
}
