//! What a command may use. The defaults and the ranges stand here and nowhere else, but for the domains of
//! `sql/02_types.sql`, which say the same ranges to the database.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// How many limits there are.
pub const LIMITS: usize = 8;

/// Their names, as in `shell.limits` and in that order, and what each may be set to.
///
/// A file may not be limited to less than what a shell needs to write down its session's state.
pub const RANGES: [(&str, RangeInclusive<u64>); LIMITS] = [
    ("wall_seconds", 1..=DAY),
    ("cpu_seconds", 1..=DAY),
    ("memory_bytes", 16 << 20..=TEBIBYTE),
    ("processes", 1..=1 << 15),
    ("open_files", 32..=1 << 16),
    ("file_size_bytes", 64 << 10..=TEBIBYTE),
    ("disk_bytes", 64 << 10..=TEBIBYTE),
    ("output_bytes", 1..=64 << 20),
];

const DAY: u64 = 86_400;
const TEBIBYTE: u64 = 1 << 40;

/// The limits of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time by the clock.
    pub wall: Duration,
    /// CPU seconds of one process.
    pub cpu_seconds: u64,
    /// Bytes of private writable memory of one process.
    pub memory_bytes: u64,
    /// Processes and threads at a time.
    pub processes: u64,
    /// Descriptors of one process.
    pub open_files: u64,
    /// Bytes that one file may grow to.
    pub file_size_bytes: u64,
    /// Bytes in the home folder, /tmp and /dev/shm together.
    pub disk_bytes: u64,
    /// Bytes of output kept; more ends the command.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: Duration::from_secs(60),
            cpu_seconds: 60,
            memory_bytes: 1 << 30,
            processes: 256,
            open_files: 1024,
            file_size_bytes: 1 << 30,
            disk_bytes: 1 << 28,
            output_bytes: 10 << 20,
        }
    }
}

impl Limits {
    /// In the order of [`RANGES`].
    pub fn values(&self) -> [u64; LIMITS] {
        [
            self.wall.as_secs(),
            self.cpu_seconds,
            self.memory_bytes,
            self.processes,
            self.open_files,
            self.file_size_bytes,
            self.disk_bytes,
            self.output_bytes as u64,
        ]
    }

    /// From values, in the order of [`RANGES`], that nobody has to have checked: what is missing is the
    /// default, and what is out of its range the nearest that is in it.
    pub fn from_untrusted(values: [Option<i64>; LIMITS]) -> Limits {
        let mut sound = Limits::default().values();
        for ((value, given), (_, range)) in sound.iter_mut().zip(values).zip(RANGES) {
            if let Some(given) = given {
                *value = u64::try_from(given)
                    .unwrap_or(0)
                    .clamp(*range.start(), *range.end());
            }
        }
        let [
            wall,
            cpu_seconds,
            memory_bytes,
            processes,
            open_files,
            file_size_bytes,
            disk_bytes,
            output,
        ] = sound;
        Limits {
            wall: Duration::from_secs(wall),
            cpu_seconds,
            memory_bytes,
            processes,
            open_files,
            file_size_bytes,
            disk_bytes,
            output_bytes: usize::try_from(output).unwrap_or(usize::MAX),
        }
    }

    /// Each the less of the two.
    #[must_use]
    pub fn at_most(self, most: &SomeLimits) -> Limits {
        let [
            wall,
            cpu,
            memory,
            processes,
            open_files,
            file_size,
            disk,
            output,
        ] = most.0;
        let less = |own: u64, most: Option<u64>| most.map_or(own, |most| own.min(most));
        Limits {
            wall: wall.map_or(self.wall, |s| self.wall.min(Duration::from_secs(s))),
            cpu_seconds: less(self.cpu_seconds, cpu),
            memory_bytes: less(self.memory_bytes, memory),
            processes: less(self.processes, processes),
            open_files: less(self.open_files, open_files),
            file_size_bytes: less(self.file_size_bytes, file_size),
            disk_bytes: less(self.disk_bytes, disk),
            output_bytes: less(self.output_bytes as u64, output) as usize,
        }
    }
}

/// Some of the limits, each within its range: an administrator's maximum, or what a user asks for.
///
/// Written as a JSON object: `{"wall_seconds": 10, "memory_bytes": 268435456}`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SomeLimits([Option<u64>; LIMITS]);

impl SomeLimits {
    /// In the order of [`RANGES`].
    pub fn values(&self) -> [Option<u64>; LIMITS] {
        self.0
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    /// A sentence without its end, about the first thing that is wrong with it.
    pub fn from_json(text: &str) -> Result<SomeLimits, String> {
        serde_json::from_str(text).map_err(|e| {
            let error = e.to_string();
            match error.rsplit_once(" at line ") {
                Some((what, _)) if e.is_data() => what.to_owned(),
                _ => error,
            }
        })
    }

    /// The names and ranges, for people.
    pub fn keys() -> String {
        let keys = RANGES
            .map(|(name, range)| format!("{name} ({} to {})", range.start(), range.end()))
            .join(", ");
        format!("Give a JSON object of whole numbers, with any of: {keys}.")
    }
}

impl<'de> Deserialize<'de> for SomeLimits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = SomeLimits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of limits")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SomeLimits, A::Error> {
        let mut limits = SomeLimits::default();
        while let Some(key) = map.next_key::<String>()? {
            let value: Value = map.next_value()?;
            let Some(at) = RANGES.iter().position(|(name, _)| *name == key) else {
                let key: String = key.chars().take(40).collect();
                return Err(A::Error::custom(format!("there is no limit \"{key}\"")));
            };
            let range = &RANGES[at].1;
            let number = value.as_u64().filter(|n| range.contains(n));
            let number = number.ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                let value: String = value.to_string().chars().take(40).collect();
                A::Error::custom(format!(
                    "{key} is not a whole number from {least} to {most}: {value}"
                ))
            })?;
            if limits.0[at].replace(number).is_some() {
                return Err(A::Error::custom(format!("{key} is there twice")));
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_their_ranges() {
        for (value, (name, range)) in Limits::default().values().iter().zip(RANGES) {
            assert!(range.contains(value), "{name}");
        }
        assert_eq!(Limits::from_untrusted([None; LIMITS]), Limits::default());
    }

    #[test]
    fn what_is_out_of_its_range_is_brought_into_it() {
        for (wild, of) in [
            (i64::MIN, RANGES.map(|(_, range)| *range.start())),
            (-1, RANGES.map(|(_, range)| *range.start())),
            (0, RANGES.map(|(_, range)| *range.start())),
            (i64::MAX, RANGES.map(|(_, range)| *range.end())),
        ] {
            let limits = Limits::from_untrusted([Some(wild); LIMITS]);
            assert_eq!(limits.values(), of, "{wild}");
        }
    }

    #[test]
    fn the_less_of_the_two_counts() {
        let most = SomeLimits::from_json(r#"{"wall_seconds": 5, "output_bytes": 67108864}"#);
        let limits = Limits::default().at_most(&most.unwrap());
        assert_eq!(limits.wall, Duration::from_secs(5));
        let default = Limits::default();
        assert_eq!(
            Limits {
                wall: default.wall,
                ..limits
            },
            default
        );
        let none = SomeLimits::from_json("{}").unwrap();
        assert_eq!(Limits::default().at_most(&none), default);
    }

    #[test]
    fn only_an_object_of_known_keys_and_whole_numbers() {
        let error = |text: &str| SomeLimits::from_json(text).expect_err(text);
        assert_eq!(error(r#"{"memory": 1}"#), "there is no limit \"memory\"");
        assert_eq!(
            error(r#"{"processes": 1, "processes": 2}"#),
            "processes is there twice"
        );
        for wrong in [
            "0",
            "-1",
            "1.5",
            "1e2",
            "32769",
            "18446744073709551616",
            "1e999",
            "\"5\"",
            "null",
            "true",
            "[5]",
            "{}",
            "NaN",
            "",
        ] {
            error(&format!("{{\"processes\": {wrong}}}"));
        }
        for wrong in ["", "null", "5", "\"{}\"", "[]", "[1, 1]", "{} {}", "{"] {
            error(wrong);
        }
        assert_eq!(
            error(r#"{"processes": "many"}"#),
            "processes is not a whole number from 1 to 32768: \"many\""
        );
    }
}
