//! What an administrator may set. The defaults are those of [`confine::Limits`], the ranges those of the
//! constraints of `shell.sandboxes`.

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use confine::Limits;
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// The helper's file name, where no path is set.
const LAUNCHER: &str = "pg-shell-launch";

static LAUNCHER_PATH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// The limits of `run_command`, each in the unit that its registration names.
struct Settings {
    timeout: GucSetting<i32>,
    max_output: GucSetting<i32>,
    cpu_time: GucSetting<i32>,
    memory: GucSetting<i32>,
    processes: GucSetting<i32>,
    open_files: GucSetting<i32>,
    file_size: GucSetting<i32>,
    disk: GucSetting<i32>,
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let default = Limits::default();
    let setting = |value: u64| GucSetting::<i32>::new(i32::try_from(value).unwrap_or(i32::MAX));
    Settings {
        timeout: setting(default.wall.as_millis() as u64),
        max_output: setting(default.output_bytes as u64),
        cpu_time: setting(default.cpu_seconds),
        memory: setting(default.memory_bytes >> 10),
        processes: setting(default.processes),
        open_files: setting(default.open_files),
        file_size: setting(default.file_size_bytes >> 10),
        disk: setting(default.disk_bytes >> 10),
    }
});

/// Registers every setting; each may be changed by a superuser only.
pub fn register() {
    GucRegistry::define_string_guc(
        c"pg_shell.launcher",
        c"Absolute path of the helper that confines run_command's child.",
        c"Empty: pg-shell-launch in the server's own library folder.",
        &LAUNCHER_PATH,
        GucContext::Suset,
        // Inside a security-restricted operation, code of a lesser user may be running.
        GucFlags::NOT_WHILE_SEC_REST | GucFlags::SUPERUSER_ONLY,
    );
    let define = |name: &'static CStr, about: &'static CStr, setting, min, max, unit| {
        GucRegistry::define_int_guc(name, about, c"", setting, min, max, GucContext::Suset, unit);
    };
    let plain = GucFlags::empty();
    let kb = GucFlags::UNIT_KB;
    let s = &*SETTINGS;
    let (day, tebibyte) = (86_400, 1 << 30);
    define(
        c"pg_shell.timeout",
        c"Time by the clock that run_command gives a command.",
        &s.timeout,
        1,
        day * 1000,
        GucFlags::UNIT_MS,
    );
    define(
        c"pg_shell.max_output",
        c"Output that run_command keeps; a command that prints more is ended.",
        &s.max_output,
        0,
        1 << 26,
        GucFlags::UNIT_BYTE,
    );
    define(
        c"pg_shell.cpu_time",
        c"CPU time one process may use.",
        &s.cpu_time,
        1,
        day,
        GucFlags::UNIT_S,
    );
    define(
        c"pg_shell.memory",
        c"Memory one process may map.",
        &s.memory,
        1 << 14,
        tebibyte,
        kb,
    );
    define(
        c"pg_shell.processes",
        c"Processes and threads at a time.",
        &s.processes,
        1,
        1 << 15,
        plain,
    );
    define(
        c"pg_shell.open_files",
        c"Descriptors one process may hold.",
        &s.open_files,
        32,
        1 << 16,
        plain,
    );
    define(
        c"pg_shell.file_size",
        c"Size that one file may grow to.",
        &s.file_size,
        0,
        tebibyte,
        kb,
    );
    define(
        c"pg_shell.disk",
        c"Size of the home folder, and of /tmp.",
        &s.disk,
        64,
        tebibyte,
        kb,
    );
    // SAFETY: the prefix is a constant, which Postgres copies.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_shell".as_ptr()) };
}

/// The limits now in force.
pub fn limits() -> Limits {
    let s = &*SETTINGS;
    // Every range begins at 0 or above.
    let of = |setting: &GucSetting<i32>| u64::try_from(setting.get()).unwrap_or_default();
    Limits {
        wall: Duration::from_millis(of(&s.timeout)),
        cpu_seconds: of(&s.cpu_time),
        memory_bytes: of(&s.memory) << 10,
        processes: of(&s.processes),
        open_files: of(&s.open_files),
        file_size_bytes: of(&s.file_size) << 10,
        disk_bytes: of(&s.disk) << 10,
        output_bytes: of(&s.max_output) as usize,
    }
}

/// Where the helper is.
pub fn launcher() -> PathBuf {
    match LAUNCHER_PATH.get() {
        Some(path) if !path.is_empty() => OsString::from_vec(path.into_bytes()).into(),
        _ => {
            // SAFETY: Postgres sets this NUL-terminated path at start and never changes it.
            let folder = unsafe { CStr::from_ptr((&raw const pg_sys::pkglib_path).cast()) };
            PathBuf::from(OsString::from_vec(folder.to_bytes().to_vec())).join(LAUNCHER)
        }
    }
}
