//! What is generated for a shell: a variable's value, whatever it is, is one word, and the word says it.
#![no_main]

use std::ffi::CString;

use confine::shell::{Shell, fuzzing};
use confine::{Limits, Spec};

/// Fields that end in NUL: shell, working directory, command, state, and then names and values.
fn spec(bytes: &[u8]) -> Option<Spec> {
    let mut fields = bytes
        .split(|&byte| byte == 0)
        .map(|field| CString::new(field).expect("split at NUL"));
    let shell = match fields.next()?.as_bytes() {
        b"sh" => Shell::Sh,
        _ => Shell::Bash,
    };
    let (cwd, command, shell_state) = (fields.next()?, fields.next()?, fields.next()?);
    let mut env = Vec::new();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        // Others are refused before there is a specification.
        if !name.is_empty() && !name.as_bytes().contains(&b'=') {
            env.push((name, value));
        }
    }
    Some(Spec {
        shell,
        command,
        env,
        cwd,
        shell_state: shell_state.into_bytes(),
        programs: None,
        layers: None,
        ahead: false,
        limits: Limits::default(),
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(spec) = spec(bytes) {
        fuzzing::check(&spec);
    }
});
