//! Text between Postgres, in the database's encoding, and Rust, in UTF-8.

use std::borrow::Cow;
use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::pg_enc;

/// Stands for a character that the database's encoding does not have.
const SUBSTITUTE: u8 = b'?';
/// How much is converted by one call.
const CHUNK: usize = 16 << 10;
/// Into how many bytes Postgres' conversions may turn one (`MAX_CONVERSION_GROWTH`).
const GROWTH: usize = 4;

/// UTF-8 from the database's encoding.
///
/// Raises Postgres' own error where a database without an encoding (`SQL_ASCII`) holds something else.
pub fn from_server(bytes: &[u8]) -> String {
    let length = i32::try_from(bytes.len()).expect("a value has less than 1 GB");
    let source = bytes.as_ptr().cast();
    // SAFETY: Postgres reads `length` bytes, and returns its argument or a new C string.
    let converted = unsafe { pg_sys::pg_server_to_any(source, length, pg_enc::PG_UTF8 as i32) };
    if std::ptr::eq(converted, source) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // SAFETY: not its argument, so a C string in the current memory context.
    unsafe { CStr::from_ptr(converted) }
        .to_string_lossy()
        .into_owned()
}

/// The database's encoding from UTF-8 without NUL. Never fails: what it does not have becomes `?`.
pub fn to_server(text: &str) -> Cow<'_, [u8]> {
    // SAFETY: reads a variable of this backend.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    if [pg_enc::PG_UTF8 as i32, pg_enc::PG_SQL_ASCII as i32].contains(&encoding) {
        return text.as_bytes().into();
    }
    // SAFETY: a look-up in the catalogue, within the caller's transaction.
    let conversion = unsafe { pg_sys::FindDefaultConversionProc(pg_enc::PG_UTF8 as i32, encoding) };
    let mut converted = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let chunk = &rest[..rest.floor_char_boundary(CHUNK)];
        let mut done = convert(conversion, encoding, chunk, &mut converted);
        if done < chunk.len() {
            converted.push(SUBSTITUTE);
            done += chunk[done..].chars().next().map_or(0, char::len_utf8);
        }
        rest = &rest[done..];
    }
    converted.into()
}

/// Converts up to the first character that cannot be, and returns how many bytes it took.
fn convert(conversion: pg_sys::Oid, encoding: i32, chunk: &str, converted: &mut Vec<u8>) -> usize {
    if conversion == pg_sys::InvalidOid {
        let ascii = chunk.bytes().take_while(u8::is_ascii).count();
        converted.extend_from_slice(&chunk.as_bytes()[..ascii]);
        return ascii;
    }
    let mut source = chunk.as_bytes().to_vec();
    let mut buffer = vec![0_u8; source.len() * GROWTH + 1];
    // SAFETY: the conversion reads and writes within the lengths given, and ends what it wrote by NUL.
    let done = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            pg_enc::PG_UTF8 as i32,
            encoding,
            source.as_mut_ptr(),
            source.len() as i32,
            buffer.as_mut_ptr(),
            buffer.len() as i32,
            true,
        )
    };
    let length = buffer
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(buffer.len());
    converted.extend_from_slice(&buffer[..length]);
    usize::try_from(done).unwrap_or_default()
}
