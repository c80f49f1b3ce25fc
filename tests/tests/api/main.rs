//! The schema that REST exposes: who sees which rows, and what each function does for whom.

mod functions;
mod html;
mod own;
mod relations;
mod watching;
mod world;
