# shellcheck shell=bash
# What every script here shares. Sourced, never run.
set -euo pipefail

# Everything is built and run from the root of the checkout.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PG_MAJOR=${PG_MAJOR:-15}
SYSTEM_PG=/usr/lib/postgresql/$PG_MAJOR/bin

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

is_root() { ((EUID == 0)); }

# Where cargo puts what it builds: CARGO_TARGET_DIR, a setting of the user's, or ./target.
target_dir() {
  cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# The flags that select PG_MAJOR's bindings; 15 is the default of the crate. Sets `features`.
# They go with --workspace; cargo-pgrx takes `pg$PG_MAJOR` itself.
cargo_features() {
  features=()
  if [[ $PG_MAJOR != 15 ]]; then
    # shellcheck disable=SC2034 # read by those who call
    features=(--no-default-features --features "pg_shell/pg$PG_MAJOR")
  fi
}

# pgrx reads $PGRX_HOME/config.toml to find Postgres. Ours leaves the user's ~/.pgrx alone. cargo
# builds the bindings again (minutes) when the file changes, so it never does: it names a
# wrapper, and PG_SHELL_PG_CONFIG may point that to a private installation.
pgrx_home() {
  local config wrapper
  PGRX_HOME=$(target_dir)/pgrx/$PG_MAJOR
  export PGRX_HOME
  wrapper=$PGRX_HOME/bin/pg_config
  config="[configs]"$'\n'"pg$PG_MAJOR = \"$wrapper\""
  mkdir -p "${wrapper%/*}"
  if [[ ! -x $wrapper ]]; then
    # shellcheck disable=SC2016 # expanded when it runs
    printf '#!/bin/sh\nexec "${PG_SHELL_PG_CONFIG:-%s/pg_config}" "$@"\n' "$SYSTEM_PG" >"$wrapper"
    chmod +x "$wrapper"
  fi
  if [[ ! -f $PGRX_HOME/config.toml || $(<"$PGRX_HOME/config.toml") != "$config" ]]; then
    printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
  fi
  # shellcheck disable=SC2034 # read by those who call
  PGRX_PG_CONFIG=$wrapper
}
