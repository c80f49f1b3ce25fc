# shellcheck shell=bash
# A scratch folder with a staged Postgres, for tests and benches. Sourced, never run.
source docker/stack/lib.sh

SCRATCH=

# Processes that run a binary of the scratch folder: what a test started and did not end.
scratch_processes() {
  local link exe
  for link in /proc/[0-9]*/exe; do
    exe=$(readlink "$link" 2>/dev/null) || continue
    [[ $exe != "$SCRATCH"/* ]] || basename "${link%/exe}"
  done
}

# shellcheck disable=SC2317 # called by the trap
remove_scratch() {
  local status=${1:-$?} pids deadline=$((SECONDS + 10))
  trap - EXIT
  while pids=$(scratch_processes) && [[ -n $pids ]] && ((SECONDS < deadline)); do sleep 0.1; done
  if [[ -n $pids ]]; then
    say "error: these processes were left behind:"
    xargs ps -o pid=,args= -p <<<"$pids" || true
    xargs kill -KILL <<<"$pids" 2>/dev/null || true
    sleep 1
    ((status)) || status=1
  fi
  rm -rf -- "$SCRATCH"
  exit "$status"
}

# Sets SCRATCH, PG_SHELL_STAGE and TMPDIR, so that whatever is made is removed in the end. The path
# is short for the sockets' sake, and everybody may enter it: Postgres runs as another user.
make_scratch() {
  SCRATCH=$(mktemp -d /tmp/pgsh.XXXXXX)
  trap remove_scratch EXIT
  trap 'exit 130' INT TERM HUP
  chmod 755 "$SCRATCH"
  mkdir -m 1777 "$SCRATCH/t"
  docker/stack/stage.sh "$SCRATCH/stage"
  export PG_SHELL_STAGE=$SCRATCH/stage TMPDIR=$SCRATCH/t
}
