//! How Postgres calls the library's functions, and how it hears of a failure.
//!
//! Written by hand rather than as `#[pg_extern]`, for two reasons. pgrx turns each SQLSTATE that is
//! not Postgres' own into `XX000`; and its rows come only in sets, where these functions have always one.

use std::ffi::{CStr, CString, c_char, c_int};

use confine::{LIMITS, Limits};
use pgrx::fcinfo::{direct_function_call_as_datum, pg_arg_is_null, pg_getarg_datum_raw};
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::varlena::varlena_to_byte_slice;
use pgrx::{PgLogLevel, pg_sys};

use crate::error::Error;
use crate::run_command::{Answer, Arguments, run};
use crate::{confinement, diff, identity, settings, text};

static VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// Tells Postgres which calling convention `pg_shell_run_command` has.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_run_command() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// The same of `pg_shell_default_limits`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_default_limits() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// The same of `pg_shell_maximum_limits`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_maximum_limits() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// The same of `pg_shell_confinement_report`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_confinement_report() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// `shell.confinement_report() returns json`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_confinement_report(
    _fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises; json is stored as text is.
    unsafe { guarded(|| Ok(text_datum(&confinement::report()?))) }
}

/// `shell.run_command(cwd text, env jsonb, command text, limits jsonb, out exit_code int, out output text)`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_run_command(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe { guarded(|| Ok(answer_row(fcinfo, &run(&arguments(fcinfo))?))) }
}

/// `shell.default_limits() returns shell.limits`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_default_limits(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe { guarded(|| Ok(limits_row(fcinfo, Limits::default().values().map(Some)))) }
}

/// `shell.maximum_limits() returns shell.limits`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_maximum_limits(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe { guarded(|| Ok(limits_row(fcinfo, settings::max_limits()?.values()))) }
}

/// The same of `pg_shell_maximum_storage`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_maximum_storage() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// `shell.maximum_storage() returns shell.storage`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_maximum_storage(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    let bytes = settings::max_storage().map(|bytes| bytes.map(Into::into));
    // SAFETY: as the caller promises; the columns of shell.storage are bigint, and in this order.
    unsafe { guarded(|| Ok(row(fcinfo, bytes))) }
}

/// Tells Postgres which calling convention `pg_shell_hash_password` has.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_hash_password() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// The same of `pg_shell_password_matches`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_password_matches() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// The same of `pg_shell_new_token`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_new_token() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// The same of `pg_shell_sign_jwt`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_sign_jwt() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// `shell.hash_password(password text) returns text`, strict.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_hash_password(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe {
        guarded(|| {
            let password = text_argument(fcinfo, 0).unwrap_or_default();
            Ok(text_datum(&identity::hash_password(&password)?))
        })
    }
}

/// `shell.password_matches(hash text, password text) returns boolean`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_password_matches(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe {
        guarded(|| {
            let hash = text_argument(fcinfo, 0);
            let password = text_argument(fcinfo, 1).unwrap_or_default();
            Ok(identity::password_matches(hash.as_deref(), &password)?.into())
        })
    }
}

/// `shell.new_token() returns text`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_new_token(
    _fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe { guarded(|| Ok(text_datum(&identity::new_token()?))) }
}

/// `shell.sign_jwt(claims jsonb) returns text`, strict.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_sign_jwt(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe {
        guarded(|| {
            let claims = json_argument(fcinfo, 0).unwrap_or_default();
            Ok(text_datum(&identity::sign_jwt(&claims)?))
        })
    }
}

/// Tells Postgres which calling convention `pg_shell_unified_diff` has.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_shell_unified_diff() -> &'static pg_sys::Pg_finfo_record {
    &VERSION_1
}

/// `shell.unified_diff(old bytea, new bytea, old_name text, new_name text) returns text`.
///
/// # Safety
/// Only for Postgres' function manager, and only with the signature above.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_shell_unified_diff(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: as the caller promises.
    unsafe {
        guarded(|| {
            let name = |number| text_argument(fcinfo, number).unwrap_or_default();
            let (old, new) = (bytes_argument(fcinfo, 0), bytes_argument(fcinfo, 1));
            Ok(text_datum(&diff::unified(old, new, &name(2), &name(3))))
        })
    }
}

/// Calls what makes a function's answer, and raises its error.
///
/// # Safety
/// Only as the whole of a function that Postgres calls: an error jumps over the frames up to Postgres.
unsafe fn guarded(
    answer: impl FnOnce() -> Result<pg_sys::Datum, Error> + std::panic::UnwindSafe,
) -> pg_sys::Datum {
    // SAFETY: nothing with a destructor lives in this frame; all that has is created and dropped within.
    let answered = unsafe { pgrx_extern_c_guard(|| answer().map_err(|error| Raised::of(&error))) };
    match answered {
        Ok(row) => row,
        // SAFETY: as above: the long jump passes no frame with a destructor.
        Err(raised) => unsafe { raised.raise() },
    }
}

/// # Safety
/// As of [`pg_shell_run_command`].
unsafe fn arguments(fcinfo: pg_sys::FunctionCallInfo) -> Arguments {
    // SAFETY: the first and the third argument are text, the second and the fourth jsonb.
    unsafe {
        Arguments {
            cwd: text_argument(fcinfo, 0),
            env: json_argument(fcinfo, 1),
            command: text_argument(fcinfo, 2),
            limits: json_argument(fcinfo, 3),
        }
    }
}

/// # Safety
/// The function that is called has an argument of this number, of type text.
unsafe fn text_argument(fcinfo: pg_sys::FunctionCallInfo, number: usize) -> Option<String> {
    // SAFETY: as the caller promises; what is detoasted lives as long as the call.
    unsafe {
        if pg_arg_is_null(fcinfo, number) {
            return None;
        }
        let text = pg_getarg_datum_raw(fcinfo, number).cast_mut_ptr();
        let bytes = varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(text));
        Some(text::from_server(bytes))
    }
}

/// # Safety
/// The function that is called has an argument of this number, of type bytea; it lives as long as the call.
unsafe fn bytes_argument<'a>(fcinfo: pg_sys::FunctionCallInfo, number: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises; what is detoasted lives as long as the call.
    unsafe {
        if pg_arg_is_null(fcinfo, number) {
            return None;
        }
        let bytes = pg_getarg_datum_raw(fcinfo, number).cast_mut_ptr();
        Some(varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(
            bytes,
        )))
    }
}

/// # Safety
/// The function that is called has an argument of this number, of type jsonb.
unsafe fn json_argument(fcinfo: pg_sys::FunctionCallInfo, number: usize) -> Option<String> {
    // SAFETY: as the caller promises; jsonb's output function returns a C string.
    unsafe {
        if pg_arg_is_null(fcinfo, number) {
            return None;
        }
        let json = Some(pg_getarg_datum_raw(fcinfo, number));
        let json = direct_function_call_as_datum(pg_sys::jsonb_out, &[json]);
        let json = CStr::from_ptr(json.expect("a value has a text").cast_mut_ptr());
        Some(text::from_server(json.to_bytes()))
    }
}

/// A value of type text, in Postgres' memory.
fn text_datum(text: &str) -> pg_sys::Datum {
    let text = text::to_server(text);
    let length = i32::try_from(text.len()).expect("no answer comes near 1 GB");
    // SAFETY: Postgres copies so many bytes.
    unsafe { pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), length).into() }
}

/// # Safety
/// As of [`pg_shell_run_command`].
unsafe fn answer_row(fcinfo: pg_sys::FunctionCallInfo, answer: &Answer) -> pg_sys::Datum {
    let values = [answer.exit_code.into(), text_datum(&answer.output)];
    // SAFETY: the function returns a record of these two columns.
    unsafe { row(fcinfo, values.map(Some)) }
}

/// # Safety
/// As of [`pg_shell_default_limits`].
unsafe fn limits_row(
    fcinfo: pg_sys::FunctionCallInfo,
    values: [Option<u64>; LIMITS],
) -> pg_sys::Datum {
    // SAFETY: the columns of shell.limits are bigint, and in this order.
    unsafe { row(fcinfo, values.map(|value| value.map(Into::into))) }
}

/// # Safety
/// The function that is called returns a row of just these columns.
unsafe fn row<const COLUMNS: usize>(
    fcinfo: pg_sys::FunctionCallInfo,
    values: [Option<pg_sys::Datum>; COLUMNS],
) -> pg_sys::Datum {
    let mut nulls = values.map(|value| value.is_none());
    let mut values = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
    // SAFETY: as the caller promises.
    unsafe {
        let mut columns = std::ptr::null_mut();
        let kind = pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &raw mut columns);
        assert_eq!(
            kind,
            pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE,
            "the function returns a row"
        );
        let columns = pg_sys::BlessTupleDesc(columns);
        let row = pg_sys::heap_form_tuple(columns, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::HeapTupleHeaderGetDatum((*row).t_data)
    }
}

/// An [`Error`] in Postgres' memory, with nothing left to drop.
#[derive(Clone, Copy)]
struct Raised {
    sqlstate: c_int,
    message: *const c_char,
    hint: *const c_char,
}

impl Raised {
    fn of(error: &Error) -> Raised {
        let hint = error.hint().map_or(std::ptr::null(), copy);
        Raised {
            sqlstate: packed(error.sqlstate()),
            message: copy(&error.to_string()),
            hint,
        }
    }

    /// What `ereport(ERROR, …)` does in C.
    ///
    /// # Safety
    /// Jumps over every frame up to Postgres' handler; none of them may have a destructor to run.
    unsafe fn raise(self) -> ! {
        unsafe extern "C-unwind" {
            fn errstart(level: c_int, domain: *const c_char) -> bool;
            fn errcode(sqlstate: c_int) -> c_int;
            fn errmsg(format: *const c_char, ...) -> c_int;
            fn errhint(format: *const c_char, ...) -> c_int;
            fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
        }
        // SAFETY: the strings are Postgres' copies or constants; errfinish does not return from an ERROR.
        unsafe {
            if errstart(PgLogLevel::ERROR as c_int, std::ptr::null()) {
                errcode(self.sqlstate);
                errmsg(c"%s".as_ptr(), self.message);
                if !self.hint.is_null() {
                    errhint(c"%s".as_ptr(), self.hint);
                }
                errfinish(c"fmgr.rs".as_ptr(), 0, c"raise".as_ptr());
            }
        }
        unreachable!("Postgres returned from an ERROR")
    }
}

/// A copy in the current memory context, in the database's encoding.
fn copy(text: &str) -> *const c_char {
    let text = CString::new(text::to_server(&text.replace('\0', "\u{FFFD}")))
        .expect("every NUL was replaced");
    // SAFETY: copies a C string.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// Postgres' `MAKE_SQLSTATE`: six bits a character.
fn packed(sqlstate: &[u8; 5]) -> c_int {
    sqlstate.iter().rev().fold(0, |packed, character| {
        packed << 6 | c_int::from((character - b'0') & 0x3F)
    })
}
