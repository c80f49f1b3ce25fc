//! The list of programs that a sandbox may be restricted to, kept by what is mounted how.
//!
//! Where a file system is mounted `noexec`, the kernel neither executes a file of it nor maps one for
//! execution; the second is what keeps the loader, given a program's path as an argument, from running what
//! is not listed. So everything is made `noexec`: the system, and whatever a command can write. What is
//! listed, the shell and the folder of shared libraries are mounted onto themselves, as they were.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{At, Failure, fault};
use crate::error::Step;
use crate::shell::Shell;

/// Folders of shared libraries, with the loader: each architecture has its own, and on some systems another.
const LIBRARIES: &[&str] = &["/usr/lib64", "/usr/lib32", "/usr/libx32"];

/// Restricts this namespace to these programs and the shell, where they are listed.
pub(super) fn restrict(programs: Option<&[CString]>, shell: Shell) -> Result<(), Failure> {
    let Some(programs) = programs else {
        return fault::point(Step::Programs);
    };
    let mut kept = Vec::new();
    for program in programs {
        let path = Path::new(OsStr::from_bytes(program.as_bytes()));
        kept.push(listed(path).at(Step::Programs)?);
    }
    kept.push(listed(Path::new(shell.path())).at(Step::Programs)?);
    kept.extend(libraries());
    let mounts = fs::read_to_string("/proc/self/mountinfo").at(Step::Programs)?;

    for path in &kept {
        mount(
            Some(path),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|e| format!("{}: {e}", path.display()))
        .at(Step::Programs)?;
    }
    // All that were there before: a folder of the system may have more of them below it.
    for line in mounts.lines() {
        forbid(line).at(Step::Programs)?;
    }
    Ok(())
}

/// The file itself: a link may lead through others.
fn listed(path: &Path) -> Result<PathBuf, String> {
    let told = |why: String| format!("the program {} is listed, but {why}", path.display());
    if !path.is_absolute() {
        return Err(told("its path is not absolute".into()));
    }
    let file = fs::canonicalize(path).map_err(|e| told(e.to_string()))?;
    match fs::metadata(&file) {
        Ok(m) if m.is_file() => Ok(file),
        Ok(_) => Err(told("it is no file".into())),
        Err(e) => Err(told(e.to_string())),
    }
}

/// Where shared libraries are. Programs that lie there as well, which packages rarely do, can be run.
fn libraries() -> Vec<PathBuf> {
    let multiarch = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    multiarch
        .map(|entry| entry.path())
        // As in x86_64-linux-gnu, and no other folder of /usr/lib.
        .filter(|path| path.to_string_lossy().contains("-linux-"))
        .chain(LIBRARIES.iter().map(PathBuf::from))
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()))
        .collect()
}

/// Makes the mount of a line of proc(5)'s mountinfo `noexec`. It keeps the flags that it has, for they are
/// locked in this namespace; mounts below it stay as they are.
fn forbid(line: &str) -> Result<(), String> {
    let mut fields = line.split(' ').skip(4);
    let (Some(at), Some(options)) = (fields.next(), fields.next()) else {
        return Err(format!("cannot read the mount {line:?}"));
    };
    let at = unescape(at);
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOEXEC;
    for option in options.split(',') {
        flags |= match option {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            _ => MsFlags::empty(),
        };
    }
    mount(None::<&str>, &at, None::<&str>, flags, None::<&str>)
        .map_err(|e| format!("{}: {e}", at.display()))
}

/// The kernel writes blanks and backslashes of a path in octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let octal = digits.and_then(|d| u8::from_str_radix(d, 8).ok());
        rest = match octal.filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                &tail[3..]
            }
            None => {
                bytes.push(first);
                tail
            }
        };
    }
    PathBuf::from(OsString::from_vec(bytes))
}
