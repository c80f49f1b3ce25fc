#!/usr/bin/env bash
# The speed tables, measured on a scratch cluster of its own.
cd "$(dirname "$0")/.."
source tests/lib.sh

make_scratch
cargo bench --package pg-shell-tests --bench pg_shell
