//! What PID 1 reads of its caller: any bytes are refused or are a specification, which comes back whole.
#![no_main]

use confine::Spec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(spec) = Spec::decode(bytes) {
        assert_eq!(Spec::decode(&spec.encode()), Ok(spec));
    }
});
