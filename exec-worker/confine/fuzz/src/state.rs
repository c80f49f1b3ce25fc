//! What a shell wrote about its state, which a command may have written instead: it is refused, or it is a
//! state that the database takes and that the next command can begin with.
#![no_main]

use std::collections::BTreeMap;

use confine::Limits;
use confine::shell::{Shell, Start, State};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let before = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
    let Ok(state) = State::read(bytes, &before) else {
        return;
    };
    assert!(state.cwd.starts_with('/') && state.cwd.len() < 4096);
    // A row of the database can hold no NUL.
    let texts = state.env.iter().flat_map(|(name, value)| [name, value]);
    assert!(
        texts
            .chain([&state.cwd, &state.shell_state])
            .all(|text| !text.contains('\0'))
    );
    assert!(state.shell_state.len() <= 1 << 20);
    for shell in [Shell::Bash, Shell::Sh] {
        let start = Start {
            command: ":",
            cwd: &state.cwd,
            env: &state.env,
            shell_state: &state.shell_state,
            programs: None,
            layers: None,
        };
        shell
            .prepare(&start, Limits::default())
            .expect("a state that was read can be restored");
    }
});
