//! Whether a command, all of whose processes have ended, has left anything behind in its namespaces.

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};

use super::home::UPPER;
use super::root::WRITABLE;

/// The folders that a command can write to, opened once for all commands.
pub(super) struct Folders {
    /// Home's upper folder.
    home: (Dir, u32),
    others: Vec<(Dir, u32)>,
}

impl Folders {
    pub(super) fn open() -> nix::Result<Folders> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let open = |path: &str, mode: u32| Ok((Dir::open(path, flags, Mode::empty())?, mode));
        let [(_, of_home), others @ ..] = WRITABLE;
        let others = others.iter().map(|(path, mode)| open(path, *mode));
        Ok(Folders {
            home: open(UPPER, *of_home)?,
            others: others.collect::<nix::Result<_>>()?,
        })
    }

    /// True where the next command would find what this one found, but for home: no file, and no System V object.
    /// POSIX queues cannot be made (their limit is 0), sockets and locks end with their processes, and everything
    /// else is read-only.
    pub(super) fn others_are_clean(&mut self) -> bool {
        self.others
            .iter_mut()
            .all(|(folder, mode)| is_empty(folder, *mode))
            && !has_system_v_objects()
    }

    /// True where there is something in home's upper folder.
    pub(super) fn home_changed(&mut self) -> bool {
        let (folder, mode) = &mut self.home;
        !is_empty(folder, *mode)
    }

    /// Home's upper folder.
    pub(super) fn home(&self) -> &Dir {
        &self.home.0
    }
}

fn is_empty(folder: &mut Dir, mode: u32) -> bool {
    fstat(&*folder).is_ok_and(|s| s.st_mode & 0o7777 == mode)
        && folder
            .iter()
            .all(|entry| entry.is_ok_and(|e| matches!(e.file_name().to_bytes(), b"." | b"..")))
}

/// `SHM_INFO` and `struct shm_info` of the kernel's `linux/shm.h`, which libc lacks.
const SHM_INFO: libc::c_int = 14;

#[repr(C)]
struct ShmInfo {
    used_ids: libc::c_int,
    pages: [libc::c_ulong; 5],
}

fn has_system_v_objects() -> bool {
    // SAFETY: each call writes one structure of its own kind, all of which are valid when zeroed.
    unsafe {
        let mut memory: ShmInfo = std::mem::zeroed();
        let mut semaphores: libc::seminfo = std::mem::zeroed();
        let mut queues: libc::msginfo = std::mem::zeroed();
        let told = [
            libc::shmctl(0, SHM_INFO, (&raw mut memory).cast()),
            libc::semctl(0, 0, libc::SEM_INFO, &raw mut semaphores),
            libc::msgctl(0, libc::MSG_INFO, (&raw mut queues).cast()),
        ];
        told.iter().any(|&r| r < 0)
            || memory.used_ids != 0
            || semaphores.semusz != 0
            || queues.msgpool != 0
    }
}
