//! How values look to people.

/// Seconds as a person says them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 0.001 => "< 1 ms".into(),
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        _ if whole < 60 => format!("{whole} s"),
        _ if whole < 3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ if whole < 86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Bytes, in steps of 1024.
pub fn bytes(count: i64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1023.95 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TB")
}

/// A whole number, in groups of three.
pub fn number(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::from(if count < 0 { "−" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A folder, the home folder as a shell shows it.
pub fn place(path: &str) -> String {
    match path.strip_prefix("/home/sandbox") {
        Some("") => "~".into(),
        Some(rest) if rest.starts_with('/') => format!("~{rest}"),
        _ => path.into(),
    }
}

/// A program and its system, by what it says of itself; the first word of that where it is no browser.
pub fn program(user_agent: &str) -> String {
    // Browsers name those that they want to be taken for, too: the most particular name counts.
    const BROWSERS: &[(&str, &str)] = &[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: &[(&str, &str)] = &[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let known = |names: &[(&str, &'static str)]| {
        let mut names = names.iter();
        names
            .find(|(mark, _)| user_agent.contains(mark))
            .map(|(_, name)| *name)
    };
    match (known(BROWSERS), known(SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.into(),
        (None, _) => user_agent
            .split_whitespace()
            .next()
            .unwrap_or("Unknown program")
            .replace('/', " "),
    }
}

/// The time of day, UTC, of a timestamp as JSON has it: until the page's script has put the reader's own.
pub fn clock(timestamp: &str) -> &str {
    timestamp.get(11..19).unwrap_or(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let rows = [
            (0.0, "< 1 ms"),
            (0.0042, "4 ms"),
            (0.9994, "999 ms"),
            (0.9996, "1.0 s"),
            (1.25, "1.2 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (61.0, "1 min 1 s"),
            (3600.0, "1 h 0 min"),
            (90_000.0, "1 d 1 h"),
        ];
        for (seconds, text) in rows {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(
            (bytes(0), bytes(1023), bytes(1024)),
            ("0 B".into(), "1023 B".into(), "1.0 kB".into())
        );
        assert_eq!(
            (bytes(1 << 20), bytes(1 << 40)),
            ("1.0 MB".into(), "1.0 TB".into())
        );
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((number(0), number(-12)), ("0".into(), "−12".into()));
    }

    #[test]
    fn programs() {
        let rows = [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
                "Safari on macOS",
            ),
            ("curl/8.5.0", "curl 8.5.0"),
            ("", "Unknown program"),
        ];
        for (agent, name) in rows {
            assert_eq!(program(agent), name);
        }
    }

    #[test]
    fn places() {
        let rows = [
            ("/home/sandbox", "~"),
            ("/home/sandbox/a", "~/a"),
            ("/home/sandboxes", "/home/sandboxes"),
            ("/", "/"),
        ];
        for (path, text) in rows {
            assert_eq!(place(path), text);
        }
        assert_eq!(clock("2026-11-21T17:22:30.123+00:00"), "17:22:30");
        assert_eq!(clock("soon"), "soon");
    }
}
