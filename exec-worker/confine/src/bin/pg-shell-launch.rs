//! The helper: takes a launch specification from its caller and becomes the command's jailer.
//! It is no use by hand.

use confine::inside::{self, BASIC, PROBE, SERVE};

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().unwrap_or_default();
    let code = match what.to_str() {
        Some(BASIC) => inside::basic(arguments.next()),
        Some(PROBE) => inside::probe(arguments.next()),
        other => inside::run(other == Some(SERVE)),
    };
    std::process::exit(code);
}
