//! Which control groups the worker uses, said once in its log.

use confine::cgroup::{Cgroup, Setting};
use tracing::{info, warn};

use crate::error::Error;

/// The control groups to use.
///
/// # Errors
/// What an administrator has named and cannot be used; what is only found is used if it can be.
pub fn find(setting: &Setting) -> Result<Option<Cgroup>, Error> {
    let found = match setting {
        Setting::Auto => Cgroup::detect(true).and_then(|cgroup| {
            let usable = cgroup.probe().map_err(|e| e.to_string());
            usable.map(|()| cgroup)
        }),
        named => match Cgroup::of(named, true)? {
            Some(cgroup) => cgroup.probe().map(|()| Ok(cgroup))?,
            None => Err("switched off".into()),
        },
    };
    match found {
        Ok(cgroup) => {
            let (path, missing) = (cgroup.path().display(), cgroup.missing());
            let controllers = cgroup.controllers().join(" ");
            info!(%path, controllers, "each command has a control group");
            if !missing.is_empty() {
                let missing = missing.join(" ");
                warn!(%path, missing, "these the kernel limits a process at a time only");
            }
            Ok(Some(cgroup))
        }
        Err(why) => {
            info!(
                why,
                "no control groups: the kernel limits memory and CPU a process at a time"
            );
            Ok(None)
        }
    }
}
