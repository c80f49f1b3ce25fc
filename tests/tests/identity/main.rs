//! Signing in: passwords, sessions, tokens, and what a failure tells.

mod passwords;
mod people;
mod secret;
mod signing_in;
mod tokens;
