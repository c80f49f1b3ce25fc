//! Which folder a process may use without having been told.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use super::{CONTROLLERS, PREFIX};

/// What may be taken for this process' own.
pub(super) struct Found {
    pub path: PathBuf,
}

/// The folder that was delegated to this process, as far as that can be told: the one above its own, if
/// nothing else is in there (the process was started in a leaf of it), or else its own, if nobody is there
/// but `movers`, who may move to a leaf.
pub(super) fn delegated(movers: &[u32]) -> Result<Found, String> {
    if Uid::effective().is_root() {
        // Root may write all of them, which says nothing about whose they are.
        return Err("to root nothing is delegated; name a folder".into());
    }
    let own = own()?;
    let above = own.parent().filter(|above| is_ours(above, &own));
    let path = match above {
        Some(above) => above.to_owned(),
        None if may_write(&own) && is_left_by(movers, &own) => own,
        None => {
            return Err(format!(
                "{} is not delegated to this process",
                own.display()
            ));
        }
    };
    let there = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    if !there.split_whitespace().any(|c| CONTROLLERS.contains(&c)) {
        return Err(format!(
            "no {} controller in {}",
            CONTROLLERS.join(", "),
            path.display()
        ));
    }
    Ok(Found { path })
}

/// The folder that this process is in.
pub(super) fn own() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|e| format!("{file}: {e}"));
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let group = group.ok_or("this process is in no cgroup v2")?;
    let (root, mount) = mounts
        .lines()
        .find_map(cgroup2_mount)
        .ok_or("cgroup v2 is not mounted")?;
    let below = Path::new(group)
        .strip_prefix(root)
        .map_err(|_| format!("this process' cgroup {group} cannot be seen from here"))?;
    Ok(mount.join(below))
}

/// A line of `mountinfo`, if it is of cgroup v2: which group is mounted, and where.
fn cgroup2_mount(line: &str) -> Option<(&Path, PathBuf)> {
    let (about, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = about.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    // A path with an escaped character is none that systemd or a container makes.
    (!mount.contains('\\')).then(|| (Path::new(root), mount.into()))
}

fn may_write(folder: &Path) -> bool {
    [
        folder.to_owned(),
        folder.join("cgroup.procs"),
        folder.join("cgroup.subtree_control"),
    ]
    .iter()
    .all(|path| access(path, AccessFlags::W_OK).is_ok())
}

/// True where `above` is writable and holds only the leaf `own` and what other callers made for commands.
fn is_ours(above: &Path, own: &Path) -> bool {
    let Ok(entries) = fs::read_dir(above) else {
        return false;
    };
    may_write(above)
        && fs::read_to_string(above.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty())
        && entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .all(|e| e.path() == own || e.file_name().to_string_lossy().starts_with(PREFIX))
}

/// True where nobody stays when these move.
fn is_left_by(movers: &[u32], own: &Path) -> bool {
    fs::read_to_string(own.join("cgroup.procs")).is_ok_and(|procs| {
        let moves = |pid: &str| pid.parse().is_ok_and(|pid: u32| movers.contains(&pid));
        !movers.is_empty() && procs.lines().all(moves)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_cgroup2_are_recognized() {
        let plain =
            "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(
            cgroup2_mount(plain),
            Some((Path::new("/"), "/sys/fs/cgroup".into()))
        );
        let part = "35 25 0:30 /a/b /sys/fs/cgroup/unified rw - cgroup2 none rw";
        assert_eq!(
            cgroup2_mount(part),
            Some((Path::new("/a/b"), "/sys/fs/cgroup/unified".into()))
        );
        for other in [
            "36 25 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
            "36 25 0:31 / /x\\040y rw - cgroup2 cgroup2 rw",
            "35 25 - cgroup2 cgroup2 rw",
            "cgroup2",
            "",
        ] {
            assert_eq!(cgroup2_mount(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_folder_with_nobody_else_in_it_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let above = place.path();
        let own = above.join("leaf");
        fs::create_dir(&own).unwrap();
        assert!(!is_ours(above, &own), "no cgroup");
        for file in ["cgroup.procs", "cgroup.subtree_control"] {
            fs::write(above.join(file), "").unwrap();
        }
        assert!(is_ours(above, &own));
        fs::create_dir(above.join(format!("{PREFIX}1-x"))).unwrap();
        assert!(is_ours(above, &own), "other callers' do not count");
        fs::write(above.join("cgroup.procs"), "1\n").unwrap();
        assert!(!is_ours(above, &own), "a process");
        fs::write(above.join("cgroup.procs"), "").unwrap();
        fs::create_dir(above.join("app.scope")).unwrap();
        assert!(!is_ours(above, &own), "somebody else's group");
    }

    #[test]
    fn a_folder_is_left_by_all_who_are_in_it_or_not_at_all() {
        let own = tempfile::tempdir().unwrap();
        assert!(!is_left_by(&[1], own.path()), "no cgroup");
        fs::write(own.path().join("cgroup.procs"), "1\n20\n").unwrap();
        assert!(is_left_by(&[20, 1, 3], own.path()));
        for some in [&[1][..], &[2, 1], &[]] {
            assert!(!is_left_by(some, own.path()), "{some:?}");
        }
    }
}
