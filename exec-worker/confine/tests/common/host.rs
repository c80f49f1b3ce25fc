//! A host without user namespaces, and folders for whoever runs commands there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that everybody may write, as /tmp is.
pub fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).expect("our own folder");
    folder
}

/// As a worker's layers, this belongs to whom the sandbox's user is outside; where root launches, that is nobody.
#[allow(dead_code)] // Each test file uses its part.
pub fn give(path: &Path) {
    if nix::unistd::Uid::effective().is_root() {
        let nobody = Some(65534);
        std::os::unix::fs::lchown(path, nobody, nobody).expect("root may");
        for entry in fs::read_dir(path).into_iter().flatten() {
            give(&entry.expect("a name").path());
        }
    }
}

/// The launcher on a host that allows no user namespace: within one, where there may be no other.
#[allow(dead_code)] // Each test file uses its part.
pub struct NoUserNamespaces {
    folder: TempDir,
}

#[allow(dead_code)]
impl NoUserNamespaces {
    pub fn new(launcher: &Path) -> NoUserNamespaces {
        let folder = open_folder();
        // Root becomes nobody before, and nobody may not enter everybody's target folder.
        let copy = folder.path().join("pg-shell-launch");
        fs::copy(launcher, &copy).expect("a copy");
        let user = match nix::unistd::Uid::effective().is_root() {
            true => "setpriv --reuid 65534 --regid 65534 --clear-groups",
            false => "",
        };
        let script = format!(
            "#!/bin/sh\nexec {user} unshare --user --map-current-user --keep-caps sh -c '
               echo 0 >/proc/sys/user/max_user_namespaces || exit
               exec setpriv --ambient-caps=-all --inh-caps=-all \"$@\"' sh {} \"$@\"\n",
            copy.display()
        );
        let wrapper = folder.path().join("launch");
        fs::write(&wrapper, script).expect("a script");
        for file in [&copy, &wrapper] {
            fs::set_permissions(file, Permissions::from_mode(0o755)).expect("our own file");
        }
        NoUserNamespaces { folder }
    }

    pub fn launcher(&self) -> PathBuf {
        self.folder.path().join("launch")
    }
}
