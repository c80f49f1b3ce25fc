//! pg_shell
