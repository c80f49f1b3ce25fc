//! What an administrator may set. The defaults and the ranges are those of [`confine::Limits`].

use std::ffi::{CStr, CString, OsString, c_char, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use confine::cgroup::Setting;
use confine::{Level, Limits, RANGES, SomeLimits};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use crate::error::Error;

/// The helper's file name, where no path is set.
const LAUNCHER: &str = "pg-shell-launch";

static MAX_LIMITS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

static MAX_SESSION_STORAGE: GucSetting<i32> = GucSetting::<i32>::new(-1);
static MAX_USER_STORAGE: GucSetting<i32> = GucSetting::<i32>::new(-1);

static PROGRAMS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static LAUNCHER_PATH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

static CGROUP: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static LEVEL: GucSetting<LevelSetting> = GucSetting::<LevelSetting>::new(LevelSetting::strict);

/// [`Level`], by the names that an administrator writes.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, pgrx::PostgresGucEnum)]
enum LevelSetting {
    strict,
    basic,
}

static JWT_SECRET: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

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
    GucRegistry::define_string_guc(
        c"pg_shell.cgroup",
        c"Delegated cgroup v2 folder in which each command of run_command has a group of its own.",
        c"Empty: what the server's own group allows. \"off\": none.",
        &CGROUP,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST | GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_enum_guc(
        c"pg_shell.level",
        c"How run_command's child is confined.",
        c"basic is weaker, for hosts without user namespaces: see shell.confinement().",
        &LEVEL,
        GucContext::Suset,
        GucFlags::NOT_WHILE_SEC_REST,
    );
    register_max_limits();
    register_jwt_secret();
    GucRegistry::define_string_guc(
        c"pg_shell.programs",
        c"Programs that run_command's commands may run besides the shell: absolute paths, with commas.",
        c"Empty: any. A comma alone: none.",
        &PROGRAMS,
        GucContext::Suset,
        GucFlags::empty(),
    );
    let s = &*SETTINGS;
    let define = |name: &'static CStr, about: &'static CStr, setting, (least, most), unit| {
        let context = GucContext::Suset;
        GucRegistry::define_int_guc(name, about, c"", setting, least, most, context, unit);
    };
    let kb = GucFlags::UNIT_KB;
    define(
        c"pg_shell.timeout",
        c"Time by the clock that run_command gives a command.",
        &s.timeout,
        (1, range("wall_seconds", 1).1.saturating_mul(1000)),
        GucFlags::UNIT_MS,
    );
    define(
        c"pg_shell.max_output",
        c"Output that run_command keeps; a command that prints more is ended.",
        &s.max_output,
        range("output_bytes", 1),
        GucFlags::UNIT_BYTE,
    );
    define(
        c"pg_shell.cpu_time",
        c"CPU time its processes may use together.",
        &s.cpu_time,
        range("cpu_seconds", 1),
        GucFlags::UNIT_S,
    );
    define(
        c"pg_shell.memory",
        c"Private writable memory its processes may have together.",
        &s.memory,
        range("memory_bytes", 1024),
        kb,
    );
    define(
        c"pg_shell.processes",
        c"Processes and threads at a time.",
        &s.processes,
        range("processes", 1),
        GucFlags::empty(),
    );
    define(
        c"pg_shell.open_files",
        c"Descriptors one process may hold.",
        &s.open_files,
        range("open_files", 1),
        GucFlags::empty(),
    );
    define(
        c"pg_shell.file_size",
        c"Size that one file may grow to.",
        &s.file_size,
        range("file_size_bytes", 1024),
        kb,
    );
    define(
        c"pg_shell.disk",
        c"Size of the home folder, /tmp and /dev/shm together.",
        &s.disk,
        range("disk_bytes", 1024),
        kb,
    );
    define(
        c"pg_shell.max_session_storage",
        c"What the files kept of one session may have together, in the worker's sessions too; -1 is no limit.",
        &MAX_SESSION_STORAGE,
        (-1, i32::MAX),
        GucFlags::UNIT_MB,
    );
    define(
        c"pg_shell.max_user_storage",
        c"What the files kept of all sessions of a user may have together, each content once; -1 is no limit.",
        &MAX_USER_STORAGE,
        (-1, i32::MAX),
        GucFlags::UNIT_MB,
    );
    // SAFETY: the prefix is a constant, which Postgres copies.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_shell".as_ptr()) };
}

/// A limit's range, in units of so much.
fn range(limit: &str, unit: u64) -> (i32, i32) {
    let (_, range) = RANGES
        .iter()
        .find(|(name, _)| *name == limit)
        .expect("the name of a limit");
    let scaled = |value: &u64| i32::try_from(value / unit).unwrap_or(i32::MAX);
    (scaled(range.start()), scaled(range.end()))
}

/// `pg_shell.max_limits`. What was set before this library was loaded cannot be refused any more, only
/// passed over with a warning; so it is taken as it is, and [`max_limits`] fails until it is corrected.
fn register_max_limits() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    #[pg_guard]
    unsafe extern "C-unwind" fn check(
        value: *mut *mut c_char,
        _extra: *mut *mut c_void,
        _source: pg_sys::GucSource::Type,
    ) -> bool {
        // SAFETY: Postgres passes a C string, or null, by reference.
        let text = unsafe { (*value).as_ref().map(|text| CStr::from_ptr(text)) };
        let Err(wrong) = read_max_limits(text) else {
            return true;
        };
        if !REGISTERED.load(Ordering::Relaxed) {
            return true;
        }
        let wrong = CString::new(wrong.replace('\0', "\u{FFFD}")).unwrap_or_default();
        // SAFETY: what GUC_check_errdetail does, with a copy in Postgres' memory.
        unsafe { pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(wrong.as_ptr()) };
        false
    }
    // SAFETY: the hook has the signature that Postgres wants, and unwinds no further than its guard.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_shell.max_limits",
            c"What no command may exceed, as a JSON object with any of the keys of shell.limits.",
            c"Holds for run_command and, in the worker's sessions, for submitted commands. Empty: no maximum.",
            &MAX_LIMITS,
            GucContext::Suset,
            GucFlags::empty(),
            Some(check),
            None,
            None,
        );
    }
    REGISTERED.store(true, Ordering::Relaxed);
}

/// `pg_shell.jwt_secret`, which nobody is shown.
fn register_jwt_secret() {
    #[pg_guard]
    unsafe extern "C-unwind" fn show() -> *const c_char {
        let is_set = JWT_SECRET.get().is_some_and(|secret| !secret.is_empty());
        if is_set { c"********" } else { c"" }.as_ptr()
    }
    // SAFETY: the hook has the signature that Postgres wants, and returns a constant.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_shell.jwt_secret",
            c"Secret by which the tokens of shell_api.sign_in are signed: @ and a file's path, or 32 bytes or more.",
            c"Empty: nobody can sign in. The same as PostgREST's jwt-secret.",
            &JWT_SECRET,
            GucContext::Suset,
            // The library may be loaded by a function that runs as its owner: it must have its value then, too.
            GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
            None,
            None,
            Some(show),
        );
    }
}

/// The setting `pg_shell.jwt_secret`.
pub fn jwt_secret() -> String {
    let secret = JWT_SECRET.get().unwrap_or_default();
    secret.to_string_lossy().into_owned()
}

fn read_max_limits(text: Option<&CStr>) -> Result<SomeLimits, String> {
    match text {
        Some(text) if !text.is_empty() => SomeLimits::from_json(&text.to_string_lossy()),
        _ => Ok(SomeLimits::default()),
    }
}

/// The programs that `run_command` may run; `None` is any.
pub fn programs() -> Option<Vec<String>> {
    let text = PROGRAMS.get()?;
    let text = text.to_string_lossy();
    let listed = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    (!text.trim().is_empty()).then(|| listed.map(str::to_owned).collect())
}

/// What no command may exceed.
pub fn max_limits() -> Result<SomeLimits, Error> {
    read_max_limits(MAX_LIMITS.get().as_deref()).map_err(Error::MaxLimits)
}

/// Bytes that the files of a session may have, and those of a user; `None` is no limit.
pub fn max_storage() -> [Option<u64>; 2] {
    let of = |setting: &GucSetting<i32>| u64::try_from(setting.get()).ok().map(|mb| mb << 20);
    [of(&MAX_SESSION_STORAGE), of(&MAX_USER_STORAGE)]
}

/// The limits of `run_command` now in force, but for the maximum.
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

/// Which control groups are used.
pub fn cgroup() -> Result<Setting, Error> {
    let text = CGROUP.get().unwrap_or_default();
    let setting = text.to_string_lossy().parse();
    setting.map_err(|wrong: String| Error::Unconfined(format!("pg_shell.cgroup: {wrong}")))
}

/// How much confinement a command gets.
pub fn level() -> Level {
    match LEVEL.get() {
        LevelSetting::strict => Level::Strict,
        LevelSetting::basic => Level::Basic,
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
