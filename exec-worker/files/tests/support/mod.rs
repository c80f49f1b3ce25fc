//! What the tests share: a user namespace to mount in, overlays over stacks, and trees to compare.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod namespace;
pub mod overlay;
pub mod random;
pub mod tree;
pub mod upper;
pub mod wait;
