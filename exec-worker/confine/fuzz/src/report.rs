//! What the caller reads of its helper.
#![no_main]

use confine::Report;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(report) = Report::decode(bytes) {
        assert_eq!(Report::decode(&report.encode()), Some(report));
    }
});
