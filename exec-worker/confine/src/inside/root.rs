//! The private root.
//!
//! A read-only tmpfs that holds: the host's `/usr` (and what of `/bin`, `/lib`, `/sbin` is not a link into
//! it), read-only; from `/etc` only what [`ETC`] names; a `/proc` of its own; a `/dev` with five devices;
//! writable, in one tmpfs of limited size: [`HOME`], `/tmp`, `/dev/shm`. Nothing else of the host is
//! there: no `/home`, `/root`, `/run`, `/sys`, `/var`, and so no socket, no data folder, no credential. The layers of
//! sessions' files, where there are any, are covered before a command begins: see `home`.
//!
//! Mounts are made with `open_tree` and `mount_setattr`, which keep the flags that a mount is locked to.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, pivot_root, sethostname};

use super::home::{self, OWN, WORK};
use super::{At, Failure, network};
use crate::error::Step;
use crate::limits::Limits;
use crate::spec::HOME;

/// Folders of the system, and names that are links into `/usr` on a merged system.
pub(super) const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// The devices, all of them without memory or effect.
pub(super) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];
/// What of `/etc` programs need to run; whatever is not named here is not there. Each is a mount, which
/// every command's namespace copies.
pub(super) const ETC: &[&str] = &[
    "alternatives",
    "ld.so.cache",
    "localtime",
    "os-release",
    "ssl/certs",
];

const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\n\
    sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/bash\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n";
const HOSTNAME: &str = "sandbox";

/// Builds the part of the root that nobody can write, and enters it; the working directory is then `/`.
/// Sets the hostname too.
///
/// The host's `/proc` is there still: the kernel lets a user namespace mount its own only where one is seen.
pub(super) fn enter_template() -> Result<(), Failure> {
    sethostname(HOSTNAME).at(Step::Hostname)?;
    build().at(Step::Root)
}

/// Adds what each command has to itself: the loopback, home, `/tmp`, `/dev/shm`, `/proc`.
pub(super) fn add_own(limits: &Limits) -> Result<(), Failure> {
    network::loopback_up()?;
    mount_own(limits).at(Step::Root)
}

/// An I/O error with what it was about.
fn about(what: &str) -> impl Fn(io::Error) -> io::Error + '_ {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

fn build() -> io::Result<()> {
    // Nothing that is mounted here may show outside.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(io::Error::from)
    .map_err(about("making / private"))?;

    let mut binds = Vec::new();
    let mut links = Vec::new();
    for name in SYSTEM {
        let host = format!("/{name}");
        match fs::symlink_metadata(&host) {
            Ok(m) if m.is_symlink() => links.push((fs::read_link(&host)?, (*name).to_owned())),
            Ok(m) if m.is_dir() => binds.push((host, (*name).to_owned(), true)),
            _ => {}
        }
    }
    for name in ETC {
        let host = format!("/etc/{name}");
        match fs::symlink_metadata(&host) {
            Ok(m) if m.is_symlink() => links.push((fs::read_link(&host)?, format!("etc/{name}"))),
            Ok(m) => binds.push((host, format!("etc/{name}"), m.is_dir())),
            Err(_) => {}
        }
    }
    if let Some(folder) = home::folder_of_layers() {
        let host = folder.to_string_lossy().into_owned();
        binds.push((host, home::LAYERS_AT[1..].to_owned(), true));
    }
    for name in DEVICES {
        binds.push((format!("/dev/{name}"), format!("dev/{name}"), false));
    }

    // The sources are cloned before anything covers them.
    let mut trees = Vec::new();
    for (host, inside, is_dir) in binds {
        let tree = clone_tree(&host).map_err(about(&host))?;
        let device = inside.starts_with("dev/");
        restrict(&tree, !device, device).map_err(about(&host))?;
        trees.push((tree, inside, is_dir));
    }

    tmpfs("/tmp", "mode=0755,size=1m,nr_inodes=1k").map_err(about("the root"))?;
    chdir("/tmp")?;
    for folder in [
        "etc",
        "etc/ssl",
        "dev",
        "dev/shm",
        "proc",
        "home",
        "run",
        "tmp",
        "var",
        "var/empty",
        "old",
    ] {
        fs::create_dir(folder).map_err(about(folder))?;
    }
    fs::create_dir(&HOME[1..])?;
    fs::create_dir(&OWN[1..])?;
    fs::write("etc/passwd", PASSWD)?;
    fs::write("etc/group", GROUP)?;
    fs::write("etc/hostname", format!("{HOSTNAME}\n"))?;
    fs::write(
        "etc/hosts",
        "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
    )?;
    fs::write(
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    )?;
    for (target, name) in links {
        symlink(target, &name).map_err(about(&name))?;
    }
    for (target, name) in [
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
        ("../tmp", "var/tmp"),
    ] {
        symlink(target, name).map_err(about(name))?;
    }
    for (tree, inside, is_dir) in &trees {
        if *is_dir {
            fs::create_dir(inside).map_err(about(inside))?;
        } else {
            fs::write(inside, "").map_err(about(inside))?;
        }
        attach(tree, inside).map_err(about(inside))?;
    }

    attach(&clone_tree("/proc").map_err(about("/proc"))?, "proc").map_err(about("/proc"))?;

    pivot_root(".", "old")
        .map_err(io::Error::from)
        .map_err(about("pivot_root"))?;
    chdir("/")?;
    umount2("old", MntFlags::MNT_DETACH)
        .map_err(io::Error::from)
        .map_err(about("leaving the host's root"))?;
    fs::remove_dir("old")?;
    let root = nix::fcntl::open(
        "/",
        nix::fcntl::OFlag::O_PATH,
        nix::sys::stat::Mode::empty(),
    )?;
    restrict_one(&root).map_err(about("/"))?;
    fchdir(&root)?;
    Ok(())
}

/// What a command may write, and the mode of each.
pub(super) const WRITABLE: &[(&str, u32); 3] =
    &[(HOME, 0o700), ("/tmp", 0o1777), ("/dev/shm", 0o1777)];

fn size(limits: &Limits) -> String {
    let inodes = 65_536.max(limits.disk_bytes / 4096);
    format!("size={},nr_inodes={inodes}", limits.disk_bytes)
}

/// Home, `/tmp` and `/dev/shm` are folders of one tmpfs, so that one size holds for all. It is mounted where
/// it is covered later.
fn mount_own(limits: &Limits) -> io::Result<()> {
    tmpfs(OWN, &format!("mode=0700,{}", size(limits))).map_err(about("the writable folders"))?;
    fs::create_dir(WORK)?;
    for (number, (at, mode)) in WRITABLE.iter().enumerate() {
        let folder = format!("{OWN}/{number}");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(*mode))?;
        mount(
            Some(folder.as_str()),
            *at,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(io::Error::from)
        .map_err(about(at))?;
    }
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .map_err(io::Error::from)
    .map_err(about("/proc"))
}

/// Gives what was mounted with the default limits those of the launch.
pub(super) fn resize_own(limits: &Limits) -> Result<(), Failure> {
    if limits.disk_bytes == Limits::default().disk_bytes {
        return Ok(());
    }
    // Of the file system, not of the mount; any of its mounts will do.
    let (at, _) = WRITABLE[0];
    mount(
        None::<&str>,
        at,
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(size(limits).as_str()),
    )
    .map_err(|e| format!("{at}: {e}"))
    .at(Step::Root)?;
    Ok(())
}

/// A file of at most so many bytes that nobody can open by a path, and of which nothing can be executed or
/// mapped as code.
pub(super) fn hidden_file(bytes: usize) -> Result<fs::File, Failure> {
    let make = || -> io::Result<fs::File> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = format!("mode=0700,size={bytes},nr_inodes=2");
        mount(
            Some("tmpfs"),
            OWN,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE | libc::O_EXCL)
            .mode(0o600)
            .open(OWN)?;
        umount2(OWN, MntFlags::MNT_DETACH)?;
        Ok(file)
    };
    make().map_err(about(OWN)).at(Step::Root)
}

pub(super) fn tmpfs(at: &str, options: &str) -> io::Result<()> {
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options),
    )?;
    Ok(())
}

/// A detached copy of a mount and all below it.
fn clone_tree(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    // SAFETY: open_tree reads a NUL-terminated path and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// No set-uid effect, and as asked no writing, no devices, for a mount and all below it.
fn restrict(tree: &OwnedFd, no_devices: bool, writable: bool) -> io::Result<()> {
    let mut attributes = libc::MOUNT_ATTR_NOSUID;
    if no_devices {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    if !writable {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    set_attributes(tree, attributes, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

/// The root's own tmpfs becomes read-only; what is mounted on it keeps its own flags.
fn restrict_one(root: &OwnedFd) -> io::Result<()> {
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    set_attributes(root, attributes, libc::AT_EMPTY_PATH)
}

fn set_attributes(tree: &OwnedFd, attributes: u64, flags: i32) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is empty, and the kernel reads exactly the given size of `change`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn attach(tree: &OwnedFd, at: &str) -> io::Result<()> {
    let at = CString::new(Path::new(at).as_os_str().as_encoded_bytes())?;
    // SAFETY: both paths are NUL-terminated; the first is empty and names the descriptor itself.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
