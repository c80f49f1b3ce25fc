#!/usr/bin/env bash
# Every check and every test there is, in a scratch folder that is removed in the end.
cd "$(dirname "$0")/.."
source tests/lib.sh

# One line for each part, with the seconds it took.
part() { # NAME COMMAND...
  local name=$1 began=$SECONDS
  shift
  say "==> $name"
  "$@"
  TIMES+=("$((SECONDS - began)) s  $name")
}
TIMES=()

# Black-box tests of the worker, the launcher and the stack. They are built first, for the runner
# below is meant for tests only.
workspace_tests() {
  local tests=(cargo test --workspace --exclude pg_shell --no-fail-fast)
  # The builtin is no dependency of the tests: bash loads it.
  cargo build --package confine-bash
  "${tests[@]}" --lib --bins --tests --no-run
  timed "${tests[@]}" --lib --bins --tests
  "${tests[@]}" --doc
}

# The page in a real browser. Screenshots of its states are kept in PG_SHELL_ARTIFACTS.
browser_tests() {
  PG_SHELL_ARTIFACTS=$(realpath --canonicalize-missing -- "${PG_SHELL_ARTIFACTS:-$(target_dir)/screenshots}")
  export PG_SHELL_ARTIFACTS
  npm ci --prefix tests/browser --no-audit --no-fund --silent
  cargo test --package pg-shell-tests --test browser -- --ignored --nocapture
  say "screenshots are in $PG_SHELL_ARTIFACTS"
}

# The tests inside Postgres, of the extension. They install it, built for tests, over the one in
# the scratch folder, so they come last. Their first test builds it. They are not timed: see tests/timed.sh.
extension_tests() {
  local as_user=() data=$SCRATCH/pgrx
  pgrx_home
  mkdir "$data"
  if is_root; then
    as_user=(--runas postgres)
    chown postgres: "$data"
  fi
  USER=$(id -un) PG_SHELL_PG_CONFIG=$PG_SHELL_STAGE/usr/lib/postgresql/$PG_MAJOR/bin/pg_config \
    cargo pgrx test --package pg_shell --pgdata "$data" "${as_user[@]}" "pg$PG_MAJOR"
  # Where it gathers what it copies, a folder for each run.
  rm -rf "$(target_dir)/debug/pg_shell-pg$PG_MAJOR"
}

# Runs cargo's test binaries through tests/timed.sh, and keeps what they print for the summary.
timed() {
  local host
  host=$(rustc --version --verbose | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  env "CARGO_TARGET_${host}_RUNNER=$PWD/tests/timed.sh" "$@" 2>&1 | tee -a "$SCRATCH/output"
}

summary() {
  say "==> slowest tests"
  sed -n 's/^test \(.*\) \.\.\. [^<]*<\([0-9.]*\)s>.*/\2 s  \1/p' "$SCRATCH/output" | sort -rn | head -n 10
  say "==> time of each part"
  printf '%s\n' "${TIMES[@]}"
}

part packages docker/stack/packages.sh test
part lint docker/stack/lint.sh
part build make_scratch
part "workspace tests" workspace_tests
part browser browser_tests
part "fuzz targets" tests/fuzz.sh 3
part "extension tests" extension_tests
summary
