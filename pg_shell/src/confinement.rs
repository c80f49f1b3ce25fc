//! `shell.confinement`: what this host can do of the confinement.

use confine::doctor::examine;

use crate::error::Error;
use crate::settings;

/// The rows, as a JSON array of objects.
pub fn report() -> Result<String, Error> {
    let launcher = settings::launcher();
    if !launcher.is_absolute() {
        return Err(Error::RelativeLauncher(launcher));
    }
    let rows = examine(&launcher, &std::env::temp_dir())?;
    Ok(serde_json::to_string(&rows).expect("strings and booleans"))
}
