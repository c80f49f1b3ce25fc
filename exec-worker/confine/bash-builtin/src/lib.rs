//! The builtins `__pg_shell_wait` and `__pg_shell_gather`, which the launcher's bash loads with `enable -f`.
//!
//! Starting bash takes longer than everything else in a launch, so it is done once: a bash that has read
//! what is the same for every command calls this builtin, which serves launches as the launcher itself
//! does and forks for each. It returns only in a process that is confined and has a command to run; bash
//! then goes on as after `bash -c`. Shapes and names are those of bash's `builtins.h`, `shell.h` and
//! `variables.h`, which loadable builtins are made for.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStringExt;

use confine::inside::waiting::{self, Woken};

/// bash's `struct builtin`.
#[repr(C)]
pub struct Builtin {
    name: *const c_char,
    function: extern "C" fn(*mut c_void) -> c_int,
    flags: c_int,
    long_doc: *const *const c_char,
    short_doc: *const c_char,
    handle: *mut c_char,
}

const BUILTIN_ENABLED: c_int = 1;
const EXECUTION_FAILURE: c_int = 1;
const EXECUTION_SUCCESS: c_int = 0;

/// What bash looks up by the builtin's name; bash itself writes to it.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut __pg_shell_wait_struct: Builtin = Builtin {
    name: c"__pg_shell_wait".as_ptr(),
    function: wait,
    flags: BUILTIN_ENABLED,
    long_doc: &raw const LONG_DOC as *const *const c_char,
    short_doc: c"__pg_shell_wait".as_ptr(),
    handle: std::ptr::null_mut(),
};

/// Bytes that are all zero: an empty list of lines.
static LONG_DOC: usize = 0;

/// The same for the builtin that gathers.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut __pg_shell_gather_struct: Builtin = Builtin {
    name: c"__pg_shell_gather".as_ptr(),
    function: gather,
    flags: BUILTIN_ENABLED,
    long_doc: &raw const LONG_DOC as *const *const c_char,
    short_doc: c"__pg_shell_gather".as_ptr(),
    handle: std::ptr::null_mut(),
};

unsafe extern "C" {
    /// The text of `bash -c`, run when the startup files have been read.
    static mut command_execution_string: *mut c_char;
    /// `$$`.
    static mut dollar_dollar_pid: libc::pid_t;
    /// Where `SECONDS` counts from.
    static mut shell_start_time: libc::time_t;
    /// Sets `PPID`.
    fn set_ppid();
    /// Seeds `RANDOM`.
    fn seedrand();
    /// Tells bash where it is.
    fn set_working_directory(path: *mut c_char);
    /// What builtins print to.
    static mut stdout: *mut libc::FILE;
    /// A stream of one's own.
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        functions: CookieFunctions,
    ) -> *mut libc::FILE;
    fn bind_variable(name: *const c_char, value: *const c_char, flags: c_int) -> *mut c_void;
}

/// Waits for a command; returns in the process that is to run it, once.
extern "C" fn wait(_arguments: *mut c_void) -> c_int {
    let Some(Woken { command, session }) = waiting::wait() else {
        return EXECUTION_FAILURE;
    };
    let text = command.into_raw();
    let cwd = std::env::current_dir()
        .ok()
        .and_then(|path| CString::new(path.into_os_string().into_vec()).ok());
    // SAFETY: bash has one thread, and these are its own variables and functions, used as its own start
    // does; it copies what it is given, and never frees the text it runs.
    unsafe {
        command_execution_string = text;
        bind_variable(c"BASH_EXECUTION_STRING".as_ptr(), text, 0);
        bind_variable(c"__pg_shell_session".as_ptr(), session.as_ptr(), 0);
        dollar_dollar_pid = libc::getpid();
        shell_start_time = libc::time(std::ptr::null_mut());
        set_ppid();
        if let Some(cwd) = cwd {
            set_working_directory(cwd.as_ptr().cast_mut());
            bind_variable(c"PWD".as_ptr(), cwd.as_ptr(), 0);
        }
        seedrand();
    }
    EXECUTION_SUCCESS
}

/// `cookie_io_functions_t` of glibc's `stdio.h`.
#[repr(C)]
struct CookieFunctions {
    read: Option<extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<extern "C" fn(*mut c_void) -> c_int>,
}

/// While builtins print into memory: the stream that they printed to before.
static mut BEFORE: *mut libc::FILE = std::ptr::null_mut();
/// What they have printed since.
static mut GATHERED: Vec<u8> = Vec::new();

/// Takes what a stream writes out.
///
/// # Safety
/// As stdio calls it: there are `length` bytes at `text`, and no other thread.
unsafe extern "C" fn take(_cookie: *mut c_void, text: *const c_char, length: usize) -> isize {
    // SAFETY: the caller says so; nothing else holds the vector while stdio writes.
    unsafe {
        let gathered = &raw mut GATHERED;
        (*gathered).extend_from_slice(std::slice::from_raw_parts(text.cast(), length));
    }
    isize::try_from(length).unwrap_or(0)
}

/// From its first call on, what builtins print is gathered in memory; the second writes it as a whole. bash
/// writes its stream out after each line of `declare -p`, so a larger buffer would not do.
extern "C" fn gather(_arguments: *mut c_void) -> c_int {
    let functions = CookieFunctions {
        read: None,
        write: Some(take),
        seek: None,
        close: None,
    };
    // SAFETY: bash has one thread. The stream that is set is open until it is taken back.
    let gathered = unsafe {
        if BEFORE.is_null() {
            let memory = fopencookie(std::ptr::null_mut(), c"w".as_ptr(), functions);
            if memory.is_null() {
                return EXECUTION_FAILURE;
            }
            (BEFORE, stdout) = (stdout, memory);
            return EXECUTION_SUCCESS;
        }
        let memory = (&raw mut stdout).replace(BEFORE);
        BEFORE = std::ptr::null_mut();
        libc::fclose(memory);
        (&raw mut GATHERED).replace(Vec::new())
    };
    // SAFETY: the shell's standard output, which is open, and is not closed here.
    let output = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDOUT_FILENO) });
    match (&*output).write_all(&gathered) {
        Ok(()) => EXECUTION_SUCCESS,
        Err(_) => EXECUTION_FAILURE,
    }
}
