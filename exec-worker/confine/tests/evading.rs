//! Commands that keep what watches them from noticing something.

mod common;

use std::time::Duration;

use common::Session;
use confine::{Ended, Used};

#[test]
fn a_look_at_what_is_used_cannot_be_put_off() {
    // PID 1 hears of each: of a signal, and of the end of a process that nobody else waits for.
    for nudge in ["kill -CHLD 1", "(true &)"] {
        let mut s = Session::new();
        s.limits.memory_bytes = 64 << 20;
        s.limits.wall = Duration::from_secs(10);
        let ran = s.run(&format!(
            "while {nudge}; do sleep 0.02; done &
             for i in {{1..6}}; do perl -e '$x = q(x); $x x= 20 << 20; sleep 1000' & done; wait"
        ));
        let report = ran.outcome.report;
        assert_eq!(report.ended, Ended::UsedUp(Used::Memory), "{nudge}");
    }
}
