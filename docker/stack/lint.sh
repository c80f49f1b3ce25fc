#!/usr/bin/env bash
# Formatting, clippy, rustdoc, SQL and shell scripts: everything that needs no database.
source "$(dirname "$0")/lib.sh"

SQLFLUFF=4.5.0

step() { say "==> $*" && "$@"; }

sqlfluff_venv() {
  local venv
  venv=$(target_dir)/venv
  if [[ $("$venv/bin/sqlfluff" --version 2>/dev/null) != "sqlfluff, version $SQLFLUFF" ]]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "sqlfluff==$SQLFLUFF"
  fi
  PATH=$PATH:$venv/bin
}

lint_rust() {
  local features
  pgrx_home
  cargo_features
  step cargo fmt --all --check
  step cargo clippy --workspace --all-targets "${features[@]}" -- -D warnings
  RUSTDOCFLAGS=-Dwarnings step cargo doc --workspace --no-deps "${features[@]}"
  step cargo fmt --manifest-path exec-worker/confine/fuzz/Cargo.toml --check
  step tests/fuzz.sh clippy
}

lint_sql() {
  sqlfluff_venv
  step sqlfluff lint --nocolor sql
}

lint_shell() {
  local scripts
  mapfile -d '' scripts < <(find .ci docker tests exec-worker -name node_modules -prune -o -type f \( -name '*.sh' -o -path .ci/run \) -print0)
  step shellcheck "${scripts[@]}"
}

lint_shell
lint_sql
lint_rust
