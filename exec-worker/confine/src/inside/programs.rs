//! The list of programs that a sandbox may be restricted to, kept by the kernel, which knows no command's text.
//!
//! - What is mounted how, on every host. Where a file system is mounted `noexec`, the kernel neither executes
//!   a file of it nor maps one for execution; the second is what keeps the loader, given a program's path as
//!   an argument, from running what is not listed. So everything is made `noexec`: the system, and whatever a
//!   command can write. What is listed, the shell and the folders of shared libraries are mounted onto
//!   themselves, as they were; the programs among the libraries, onto themselves as well, but `noexec`.
//! - No file without a place: seccomp refuses memory files to the command, and its state goes to a file that
//!   lies on a `noexec` mount nobody can see (`root::hidden_file`).
//! - `/proc` is read-only, so that no process' memory is rewritten through it.
//! - Landlock, where the kernel has it, lets nothing but the list, the shell and the loaders be executed.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::root::SYSTEM;
use super::{At, Failure};
use crate::error::Step;
use crate::shell::Shell;

/// Folders of shared libraries, with the loader: each architecture has its own, and on some systems another.
const LIBRARIES: &[&str] = &["/usr/lib64", "/usr/lib32", "/usr/libx32"];
/// Interpreters whose modules, libraries too, lie in folders that begin with their name.
const INTERPRETERS: &[&str] = &["perl", "python", "ruby"];
/// Where loaders are.
const LOADERS: &[&str] = &["/lib", "/lib32", "/lib64", "/libx32"];

/// Restricts this namespace to these programs and the shell. Returns all that may be executed.
pub(super) fn restrict(programs: &[CString], shell: Shell) -> Result<Vec<PathBuf>, Failure> {
    let mut executed = vec![listed(Path::new(shell.path())).at(Step::Programs)?];
    for program in programs {
        let path = Path::new(OsStr::from_bytes(program.as_bytes()));
        executed.push(listed(path).at(Step::Programs)?);
    }
    let libraries = libraries(&executed);
    let mut others = Vec::new();
    for folder in &libraries {
        programs_in(folder, &executed, &mut others);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").at(Step::Programs)?;

    for path in libraries.iter().chain(&executed) {
        onto_itself(path).at(Step::Programs)?;
    }
    // All that were there before: a folder of the system may have more of them below it.
    for line in mounts.lines() {
        forbid_mount(line).at(Step::Programs)?;
    }
    // Of the system, as what they lie in.
    let system = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for path in &others {
        onto_itself(path)
            .and_then(|()| forbid(path, system))
            .at(Step::Programs)?;
    }
    executed.extend(loaders().at(Step::Programs)?);
    Ok(executed)
}

/// The file itself: a link may lead through others.
fn listed(path: &Path) -> Result<PathBuf, String> {
    let told = |why: &str| format!("the program {} is listed, but {why}", path.display());
    if !path.is_absolute() {
        return Err(told("its path is not absolute"));
    }
    let file = fs::canonicalize(path).map_err(|e| told(&e.to_string()))?;
    let about = fs::metadata(&file).map_err(|e| told(&e.to_string()))?;
    // What a link in /proc means depends on who asks.
    let is_of_a_process = path.starts_with("/proc");
    if is_of_a_process
        || !SYSTEM
            .iter()
            .any(|s| file.starts_with(Path::new("/").join(s)))
    {
        return Err(told("it is no part of the system"));
    }
    if !about.is_file() {
        return Err(told("it is no file"));
    }
    if !is_executable(&about) {
        return Err(told("it cannot be executed"));
    }
    Ok(file)
}

/// Where shared libraries are that these need.
fn libraries(executed: &[PathBuf]) -> Vec<PathBuf> {
    let below = ["/usr/lib", "/usr/local/lib"].map(fs::read_dir);
    below
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_of_an_architecture(path) || executed.iter().any(|p| is_own(path, p)))
        .chain(LIBRARIES.iter().map(PathBuf::from))
        // A link leads to another of them.
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()))
        .collect()
}

/// As in x86_64-linux-gnu.
fn is_of_an_architecture(path: &Path) -> bool {
    path.to_string_lossy().contains("-linux-")
}

/// True for the folder that a program lies in, and for the modules of an interpreter.
fn is_own(folder: &Path, program: &Path) -> bool {
    let begins = |path: &Path, name: &str| {
        let file = path.file_name().unwrap_or_default();
        file.as_bytes().starts_with(name.as_bytes())
    };
    let of_both = |name: &&str| begins(folder, name) && begins(program, name);
    program.starts_with(folder) || INTERPRETERS.iter().any(of_both)
}

/// Adds the programs in this folder and below that are not to be `executed`, and folders into which nobody
/// can look.
fn programs_in(folder: &Path, executed: &[PathBuf], found: &mut Vec<PathBuf>) {
    let Ok(entries) =
        fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
    else {
        return found.push(folder.into());
    };
    for entry in entries {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => programs_in(&path, executed, found),
            Ok(kind) if !kind.is_file() => {}
            _ if is_program(&entry) && !executed.contains(&path) => found.push(path),
            _ => {}
        }
    }
}

/// True for an ELF file with an executable bit that is no library by its name. What runs a script must be
/// listed itself.
fn is_program(entry: &DirEntry) -> bool {
    !entry.file_name().to_string_lossy().contains(".so")
        && entry.metadata().map_or(true, |about| is_executable(&about))
        && is_elf(&entry.path()).unwrap_or(true)
}

fn is_executable(about: &fs::Metadata) -> bool {
    about.permissions().mode() & 0o111 != 0
}

fn is_elf(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut begin)?;
    Ok(begin == b"\x7fELF")
}

/// Every ELF loader of this system: which one a program needs, the kernel asks the program.
fn loaders() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in LOADERS
        .iter()
        .filter_map(|f| fs::read_dir(f).ok())
        .flatten()
    {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("ld-") && name.contains(".so") {
            found.push(fs::canonicalize(entry.path())?);
        }
    }
    Ok(found)
}

/// A mount of its own, which begins with the flags of what it lies in.
fn onto_itself(path: &Path) -> Result<(), String> {
    mount(
        Some(path),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|e| format!("{}: {e}", path.display()))
}

/// Makes the mount of a line of proc(5)'s mountinfo `noexec`; mounts below it stay as they are.
fn forbid_mount(line: &str) -> Result<(), String> {
    let mut fields = line.split(' ').skip(4);
    let (Some(at), Some(options)) = (fields.next(), fields.next()) else {
        return Err(format!("cannot read the mount {line:?}"));
    };
    let at = unescape(at);
    let mut flags = MsFlags::empty();
    for option in options.split(',') {
        flags |= match option {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            _ => MsFlags::empty(),
        };
    }
    if at == Path::new("/proc") {
        flags |= MsFlags::MS_RDONLY;
    }
    forbid(&at, flags)
}

/// Makes a mount `noexec`. It must keep the flags that it has, for they are locked in this namespace.
fn forbid(at: &Path, flags: MsFlags) -> Result<(), String> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOEXEC;
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_and_what_is_no_program_is_refused() {
        let shell = listed(Path::new("/bin/sh")).expect("a shell");
        assert!(!fs::symlink_metadata(&shell).expect("a file").is_symlink());
        for wrong in [
            "sh",
            "/usr/bin",
            "/etc/passwd",
            "/nonesuch",
            "/dev/null",
            "/proc/self/exe",
        ] {
            let reason = listed(Path::new(wrong)).expect_err("refused");
            assert!(reason.contains(wrong), "{reason}");
        }
    }

    #[test]
    fn programs_are_told_from_libraries() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let at = |path: &str| root.path().join(path);
        for folder in ["pure/deep", "mixed/deep"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        let write = |path: &str, content: &str, mode: u32| {
            fs::write(at(path), content).expect("a file");
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).expect("a mode");
        };
        write("pure/deep/lib.so.1", "\x7fELF", 0o755);
        write("pure/script", "#!/bin/sh", 0o755);
        write("mixed/program", "\x7fELF", 0o755);
        write("mixed/listed", "\x7fELF", 0o755);
        write("mixed/data", "\x7fELF", 0o644);
        write("mixed/deep/another", "\x7fELF", 0o711);
        symlink(at("mixed/program"), at("pure/link")).expect("a link");
        let mut found = Vec::new();
        programs_in(root.path(), &[at("mixed/listed")], &mut found);
        programs_in(&at("nonesuch"), &[], &mut found);
        found.sort();
        assert_eq!(
            found,
            [
                at("mixed/deep/another"),
                at("mixed/program"),
                at("nonesuch")
            ]
        );
    }

    #[test]
    fn modules_belong_to_their_interpreter() {
        let is_own = |folder: &str, program: &str| is_own(Path::new(folder), Path::new(program));
        assert!(is_own("/usr/lib/python3.11", "/usr/bin/python3.11"));
        assert!(is_own(
            "/usr/lib/git-core",
            "/usr/lib/git-core/git-remote-https"
        ));
        for (folder, program) in [
            ("/usr/lib/python3.11", "/usr/bin/perl"),
            ("/usr/lib/python3.11", "/usr/bin/id"),
            ("/usr/lib/git-core", "/usr/bin/git"),
        ] {
            assert!(!is_own(folder, program), "{folder} {program}");
        }
    }

    #[test]
    fn blanks_and_backslashes_are_read() {
        assert_eq!(unescape(r"/a\040b\134c\1"), Path::new(r"/a b\c\1"));
    }
}
