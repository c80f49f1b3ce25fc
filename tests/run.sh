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

TESTS=(cargo test --workspace --exclude pg_shell --no-fail-fast)

# They are built first, for the runner below is meant for tests only.
build_tests() {
  # The builtin is no dependency of the tests: bash loads it.
  cargo build --package confine-bash
  "${TESTS[@]}" --lib --bins --tests --no-run
}

# Black-box tests of the worker, the launcher and the stack.
workspace_tests() {
  timed "${TESTS[@]}" --lib --bins --tests
  "${TESTS[@]}" --doc
}

# The page in a real browser. Screenshots of its states are kept in PG_SHELL_ARTIFACTS.
browser_tests() {
  PG_SHELL_ARTIFACTS=$(realpath --canonicalize-missing -- "${PG_SHELL_ARTIFACTS:-$(target_dir)/screenshots}")
  export PG_SHELL_ARTIFACTS
  npm ci --prefix tests/browser --no-audit --no-fund --silent
  "${TESTS[@]}" --test browser -- --ignored --nocapture
  say "screenshots are in $PG_SHELL_ARTIFACTS"
}

# What waits more than it works goes on beside the workspace tests. Shown when it has ended.
beside() {
  part browser browser_tests
  part "fuzz targets" tests/fuzz.sh 3
  printf '%s (beside the workspace tests)\n' "${TIMES[@]: -2}" >"$SCRATCH/times"
}
BESIDE=

begin_beside() {
  # A folder of its own, for some tests look at what others leave in theirs; and a process group, to be ended with all
  # that it has started.
  mkdir -m 1777 "$SCRATCH/b"
  set -m
  TMPDIR=$SCRATCH/b beside </dev/null &>"$SCRATCH/beside" &
  BESIDE=$!
  set +m
  trap 'status=$?; end_beside; remove_scratch "$status"' EXIT
}

# Where something else has failed.
end_beside() {
  [[ -n $BESIDE ]] || return 0
  kill -TERM -- "-$BESIDE" 2>/dev/null || true
  wait "$BESIDE" || true
  cat "$SCRATCH/beside"
}

await_beside() {
  local status=0
  wait "$BESIDE" || status=$?
  BESIDE=
  cat "$SCRATCH/beside"
  return "$status"
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
  cat "$SCRATCH/times"
}

part packages docker/stack/packages.sh test
part lint docker/stack/lint.sh
part build make_scratch
part "build of the tests" build_tests
begin_beside
part "workspace tests" workspace_tests
part "what is left of browser and fuzz" await_beside
part "extension tests" extension_tests
summary
