//! Figures and how they are shown.

use std::time::Duration;

/// The value below which a `share` of the samples lie.
pub fn percentile(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// The middle one.
pub fn median(samples: &[Duration]) -> Duration {
    percentile(samples, 0.5)
}

/// A duration in milliseconds, for people.
pub fn ms(d: Duration) -> String {
    format!("{:.2} ms", d.as_secs_f64() * 1e3)
}

/// A Markdown table, printed as it grows.
pub struct Table;

impl Table {
    /// Begins it.
    pub fn new() -> Table {
        println!("\n| figure | pg_shell | against | ratio | to reach |\n|---|---|---|---|---|");
        Table
    }

    /// Adds a row.
    pub fn row(&self, figure: &str, value: &str, against: &str, ratio: &str, target: &str) {
        println!("| {figure} | {value} | {against} | {ratio} | {target} |");
    }
}
