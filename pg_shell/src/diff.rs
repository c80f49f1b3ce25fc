//! What differs between two files, for people.

use std::time::Duration;

use similar::TextDiff;

/// After this the differences are no longer the fewest possible, but found soon.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `diff -u` prints; nothing where nothing differs. `None` is a file that is not there.
pub fn unified(old: Option<&[u8]>, new: Option<&[u8]>, old_name: &str, new_name: &str) -> String {
    if old == new {
        return String::new();
    }
    let name = |file: Option<&[u8]>, name: &str| match file {
        Some(_) => name.replace('\n', "\\n"),
        None => "/dev/null".into(),
    };
    let (old_name, new_name) = (name(old, old_name), name(new, new_name));
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    if [old, new].iter().any(|file| file.contains(&0)) {
        return format!("Binary files {old_name} and {new_name} differ\n");
    }
    let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
    TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(old.as_ref(), new.as_ref())
        .unified_diff()
        .header(&old_name, &new_name)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn as_diff_prints_it() {
        let diff = unified(Some(b"a\nb\nc\n"), Some(b"a\nB\nc"), "old", "new");
        let expected =
            "--- old\n+++ new\n@@ -1,3 +1,3 @@\n a\n-b\n-c\n+B\n+c\n\\ No newline at end of file\n";
        assert_eq!(diff, expected);
        assert_eq!(unified(Some(b"a"), Some(b"a"), "old", "new"), "");
        let made = unified(None, Some(b"a\n"), "old", "new");
        assert_eq!(made, "--- /dev/null\n+++ new\n@@ -0,0 +1 @@\n+a\n");
    }

    #[test]
    fn bytes_that_are_no_text() {
        let binary = unified(Some(b"a\0"), Some(b"b"), "old", "new");
        assert_eq!(binary, "Binary files old and new differ\n");
        assert!(unified(Some(b"\xff\n"), Some(b"b\n"), "old", "new").contains('\u{fffd}'));
    }
}
