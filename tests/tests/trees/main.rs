//! The files of sessions, as far as SQL keeps them: no worker runs here, the tests do by hand what one does.

mod counted;
mod hand;
mod paths;
mod proof;
mod reading;
mod restore;
mod retention;
mod storing;
mod writing;
