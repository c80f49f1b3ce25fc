#!/usr/bin/env bash
# One more worker for a running stack, in the foreground. Ctrl-C stops it.
source "$(dirname "$0")/lib.sh"
source docker/stack/launch.sh

WORKER_PID=
stack_settings
[[ -x $STAGE/bin/exec-worker && -S $SOCKET/.s.PGSQL.$PORT ]] ||
  die "no stack runs on $DATA with port $PORT: start it with make run"
superuser_psql --dbname=pg_shell --command='select 1' >/dev/null || die "the Postgres of $DATA does not answer"
service_users
reach_data

# The first signal lets it finish what it runs, the second makes it give that up.
trap 'kill -TERM "$WORKER_PID" 2>/dev/null || true' INT TERM HUP
launch_worker &
WORKER_PID=$!
status=0
while running "$WORKER_PID"; do
  status=0
  wait "$WORKER_PID" || status=$?
done
exit "$status"
