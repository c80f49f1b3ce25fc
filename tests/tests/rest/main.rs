//! What `/rpc/*` promises, case by case: ours, or another server's that `PG_SHELL_REST_URL` names.

mod addresses;
mod arguments;
mod harness;
mod requests;
mod results;
