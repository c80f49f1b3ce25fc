//! The helper: takes a launch specification from its caller and becomes the command's jailer.
//! It is no use by hand.

fn main() {
    let serve = std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == confine::inside::SERVE);
    std::process::exit(confine::inside::run(serve));
}
