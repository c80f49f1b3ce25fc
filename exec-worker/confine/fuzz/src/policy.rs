//! The compiled seccomp policy, run on any system call: it decides as the policy says, and always decides.
#![no_main]

use std::ops::Range;

use confine::seccomp;
use seccompiler::sock_filter;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// System calls of the other interface of this machine, which the kernel knows by this bit.
const X32: u32 = 0x4000_0000;

/// The kernel's `struct seccomp_data`, as bytes.
struct Call([u8; 64]);

impl Call {
    fn part(&self, range: Range<usize>) -> u64 {
        let mut bytes = [0; 8];
        bytes[..range.len()].copy_from_slice(&self.0[range]);
        u64::from_le_bytes(bytes)
    }
    fn number(&self) -> u32 {
        self.part(0..4) as u32
    }
    fn arch(&self) -> u32 {
        self.part(4..8) as u32
    }
    fn argument(&self, index: usize) -> u64 {
        self.part(16 + 8 * index..24 + 8 * index)
    }
}

/// What the kernel would do with a filter's instructions, of which seccomp has these.
fn run(filter: &[sock_filter], call: &Call) -> u32 {
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let instruction = &filter[at];
        let (code, k) = (u32::from(instruction.code), instruction.k);
        at += 1;
        let mut jump = |condition: bool| {
            at += usize::from(if condition {
                instruction.jt
            } else {
                instruction.jf
            });
        };
        match code {
            0x20 => accumulator = call.part(k as usize..k as usize + 4) as u32,
            0x06 => return k,
            0x05 => at += k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x54 => accumulator &= k,
            other => panic!("instruction {other:#x} at {}", at - 1),
        }
    }
}

/// The parts of the policy that look at arguments, and of those that do not, a few that matter most.
fn outer(call: &Call) -> Option<u32> {
    let number = i64::from(call.number());
    if cfg!(target_arch = "x86_64") && call.number() & X32 != 0 {
        return Some(ENOSYS);
    }
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    let decided = |denied: bool| Some(if denied { EPERM } else { ALLOW });
    match number {
        libc::SYS_clone3 => Some(ENOSYS),
        libc::SYS_socket | libc::SYS_socketpair => {
            decided(!families.contains(&(call.argument(0) as i32)))
        }
        libc::SYS_ioctl => decided(matches!(
            u64::from(call.argument(1) as u32),
            libc::TIOCSTI | libc::TIOCLINUX
        )),
        libc::SYS_bpf
        | libc::SYS_ptrace
        | libc::SYS_io_uring_setup
        | libc::SYS_keyctl
        | libc::SYS_userfaultfd
        | libc::SYS_unshare
        | libc::SYS_setns
        | libc::SYS_move_mount
        | libc::SYS_open_by_handle_at
        | libc::SYS_perf_event_open => Some(EPERM),
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_openat
        | libc::SYS_execve
        | libc::SYS_clone
        | libc::SYS_exit_group
        | libc::SYS_mount => Some(ALLOW),
        _ => None,
    }
}

fn inner(call: &Call) -> u32 {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let denied = match i64::from(call.number()) {
        libc::SYS_mount | libc::SYS_umount2 => true,
        libc::SYS_clone => call.argument(0) & namespaces as u64 != 0,
        _ => false,
    };
    if denied { EPERM } else { ALLOW }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut call = Call([0; 64]);
    let length = bytes.len().min(64);
    call.0[..length].copy_from_slice(&bytes[..length]);
    // Most bytes would be another machine's calls.
    if call.arch() & 3 != 3 {
        call.0[4..8].copy_from_slice(&ARCH.to_le_bytes());
    }
    let filters = seccomp::filters().expect("the policy compiles");
    let found = (run(&filters.outer, &call), run(&filters.inner, &call));
    if call.arch() != ARCH {
        // Refused by the first that looks, before or after the interface's bit.
        assert!(found.0 == KILL || found.0 == ENOSYS, "{:#x}", found.0);
        return;
    }
    assert!([ALLOW, EPERM, ENOSYS].contains(&found.0), "{:#x}", found.0);
    if let Some(expected) = outer(&call) {
        assert_eq!(found.0, expected, "call {}", call.number());
    }
    if call.number() & X32 == 0 {
        assert_eq!(found.1, inner(&call), "call {}", call.number());
    }
});
