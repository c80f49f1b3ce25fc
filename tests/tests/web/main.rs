//! The server beside REST: signing in, streams, exports, and what every answer has.

mod answers;
mod crowds;
mod harness;
mod owners;
mod signing_in;
mod streams;
