//! A shell that is forked ahead of its command has the memory that it writes made its own ahead, too: else it does
//! so page by page, each with a fault, while somebody waits for it. What it only reads comes many pages a fault, and to
//! have all of it ahead takes longer.

use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::sync::OnceLock;

/// A larger area is not the shell's own: its pages would be copied, and freed again, for nothing.
const LARGEST: usize = 2 << 20;
/// As much of the stack, on both sides of where it is.
const STACK: usize = 16 << 10;

/// What all forks have in common.
static AREAS: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// Notes the areas of this process' memory, for all its forks.
pub(super) fn note_areas() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    AREAS.get_or_init(|| maps.lines().filter_map(area).collect());
}

/// An area that is worth it: what can be written.
fn area(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (begin, end) = fields.next()?.split_once('-')?;
    if !matches!(fields.next()?.as_bytes(), [_, b'w', _, b'p'])
        || fields
            .nth(3)
            .is_some_and(|name| name.starts_with('[') && name != "[heap]")
    {
        return None;
    }
    let pages = usize::from_str_radix(begin, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    (pages.len() <= LARGEST).then_some(pages)
}

/// Has the kernel do now what this process' first uses of its memory would have it do. A kernel that cannot
/// (before 5.14) does it then.
pub(super) fn up() {
    let local = 0_u8;
    let here = (&raw const local).addr() & !4095;
    let stack = here - STACK..here + STACK;
    for pages in AREAS.get().into_iter().flatten().chain([&stack]) {
        // SAFETY: this advice changes nothing that a program could see, wherever it is given.
        unsafe {
            libc::madvise(
                pages.start as *mut c_void,
                pages.len(),
                libc::MADV_POPULATE_WRITE,
            )
        };
    }
}
