//! The helper: takes a launch specification from its caller and becomes the command's jailer.
//! It has no options and is no use by hand.

fn main() {
    std::process::exit(confine::inside::run());
}
