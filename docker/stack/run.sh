#!/usr/bin/env bash
# The stack in the foreground: a private Postgres with pg_shell, a worker, and the web server. Ctrl-C stops it.
source "$(dirname "$0")/lib.sh"
source docker/stack/launch.sh
source docker/stack/cluster.sh

BUILD_PID=
PG_PID=
WORKER_PID=
WEB_PID=
STOPPING=

# Keep the logs of this run and of the one before it.
rotate_logs() {
  local log
  for log in "$DATA"/log/{postgres,worker,web}.log; do
    [[ ! -f $log ]] || mv -f -- "$log" "$log.1"
  done
}

# Takes the data for this run. The lock goes when this process does, however it ends.
take_data() {
  umask 022
  mkdir -p -- "$DATA"
  exec {LOCK}>"$DATA/lock"
  flock --nonblock "$LOCK" || die "a stack already runs on $DATA; make worker adds a worker to it"
  mkdir -p -- "$SOCKET" "$DATA/log"
  chmod 700 -- "$DATA/log"
  if is_root; then
    chmod a+x -- "$DATA"
    chown "$PG_USER:" -- "$SOCKET"
  fi
  rotate_logs
}

# In a process group of its own, so that all of it can be stopped.
build() {
  set -m
  docker/stack/stage.sh "$STAGE" {LOCK}>&- &
  BUILD_PID=$!
  set +m
  wait "$BUILD_PID"
  BUILD_PID=
}

start_worker() {
  launch_worker >>"$DATA/log/worker.log" 2>&1 &
  WORKER_PID=$!
}

# The worker is up when its row says so, or what it printed if it died.
await_worker() { # SINCE
  local row
  while row=$(superuser_psql --dbname=pg_shell --command="select id from shell.workers
      where stopped_at is null and lost_since is null and heartbeat_at >= '$1' limit 1"); do
    [[ -z $row ]] || return 0
    if ! running "$WORKER_PID"; then
      tail -n 10 "$DATA/log/worker.log" >&2
      die "the worker did not start; its log is $DATA/log/worker.log"
    fi
    sleep 0.1
  done
  die "the table of workers cannot be read"
}

start_web() {
  launch_web >>"$DATA/log/web.log" 2>&1 &
  WEB_PID=$!
}

await_web() {
  until grep -q 'ready on' "$DATA/log/web.log"; do
    if ! running "$WEB_PID"; then
      tail -n 5 "$DATA/log/web.log" >&2
      die "the web server did not start; is port $HTTP_PORT taken? Then set PG_SHELL_HTTP_PORT. Its log is $DATA/log/web.log"
    fi
    sleep 0.1
  done
}

announce() {
  [[ $PG_USER != "$WORKER_USER" ]] ||
    say "warning: the worker shares the OS user $WORKER_USER with Postgres (only root can part them): keep this stack for trying things out"
  printf 'pg_shell is ready: Postgres on port %s, logs in %q\n' "$PORT" "$DATA/log"
  printf '  psql -h %q -p %s -U postgres pg_shell\n' "$SOCKET" "$PORT"
  printf '  http://localhost:%s/ for who has a password; by that psql:\n' "$HTTP_PORT"
  printf "    insert into shell.users (username) values ('me');\n"
  printf "    select shell.set_password(id, 'my long password') from shell.users where username = 'me';\n"
}

# The web server first; then the worker, so that it can write back what it finished; then Postgres. A second Ctrl-C
# makes the worker give up what it runs.
# shellcheck disable=SC2317 # called by the trap
stop() {
  local status=$?
  trap - EXIT
  trap '[[ -z $WORKER_PID ]] || kill -TERM "$WORKER_PID" 2>/dev/null || true' INT TERM HUP
  [[ -z $BUILD_PID ]] || kill -TERM -- "-$BUILD_PID" 2>/dev/null || true
  [[ -z $PG_PID$WORKER_PID ]] || say "stopping"
  [[ -z $WEB_PID ]] || stop_web "$WEB_PID" || true
  WEB_PID=
  [[ -z $WORKER_PID ]] || stop_worker "$WORKER_PID" || true
  WORKER_PID=
  if [[ -n $PG_PID ]] && running "$PG_PID"; then
    kill -INT "$PG_PID" 2>/dev/null || true
    ended_within 60 "$PG_PID" || kill -QUIT "$PG_PID" 2>/dev/null || true
    wait "$PG_PID" 2>/dev/null || true
  fi
  exit "${STOPPING:-$status}"
}

# Starts a worker or a web server that died again, each time with a line; returns when Postgres has ended.
supervise() {
  local ended status
  while running "$PG_PID"; do
    status=0
    { wait -n -p ended "$PG_PID" "$WORKER_PID" "$WEB_PID"; } 2>/dev/null || status=$?
    case ${ended:-} in
      "$WORKER_PID")
        say "the worker ended (status $status): starting it again in 1 s; its log is $DATA/log/worker.log"
        sleep 1
        start_worker
        ;;
      "$WEB_PID")
        say "the web server ended (status $status): starting it again in 1 s; its log is $DATA/log/web.log"
        sleep 1
        start_web
        ;;
    esac
  done
  PG_PID=
  die "Postgres ended by itself; its log is $DATA/log/postgres.log"
}

stack_settings
SEEN=$DATA
take_data
trap stop EXIT
trap 'STOPPING=0; exit 0' INT TERM HUP
build
service_users
reach_data
cluster_settings
init_cluster
clear_stale_pid
write_access
start_postgres
prepare_database
since=$(superuser_psql --dbname=pg_shell --command='select clock_timestamp()')
start_worker
await_worker "$since"
start_web
await_web
announce
supervise
