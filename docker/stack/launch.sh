# shellcheck shell=bash
# The settings of a stack, and how its processes are started. Sourced after lib.sh, never run.

# Sets DATA, PORT, HTTP_PORT, SOCKET, STAGE, and the OS users of Postgres, of the worker and of the web server.
stack_settings() {
  DATA=$(realpath --canonicalize-missing -- "${PG_SHELL_DATA:-.run}")
  PORT=${PG_SHELL_PORT:-54320}
  HTTP_PORT=${PG_SHELL_HTTP_PORT:-8080}
  SOCKET=$DATA/socket
  STAGE=$DATA/stage
  is_port "$PORT" || die "PG_SHELL_PORT is '$PORT': a port, 1 to 65535, is needed"
  is_port "$HTTP_PORT" || die "PG_SHELL_HTTP_PORT is '$HTTP_PORT': a port, 1 to 65535, is needed"
  [[ $DATA != *[\'\",\\]* ]] || die "PG_SHELL_DATA is $DATA: a path without quotes, commas and backslashes is needed"
  # The kernel's limit for the path of a Unix socket.
  local path=$SOCKET/.s.PGSQL.$PORT
  ((${#path} <= 107)) ||
    die "$path is ${#path} bytes long and a Unix socket's path may have 107: set PG_SHELL_DATA to a shorter path"
  if is_root; then
    PG_USER=postgres WORKER_USER=pg_shell_worker WEB_USER=pg_shell_web
  else
    PG_USER=$(id -un) WORKER_USER=$(id -un) WEB_USER=$(id -un)
  fi
}

is_port() { [[ $1 =~ ^[1-9][0-9]{0,4}$ && $1 -le 65535 ]]; }

# Makes the OS users of the worker and of the web server.
service_users() {
  local user
  is_root || return 0
  for user in "$WORKER_USER" "$WEB_USER"; do
    id "$user" &>/dev/null ||
      useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
  done
}

can_reach() { # USER FOLDER
  setpriv --reuid "$1" --regid "$1" --init-groups test -x "$2"
}

# Sets SEEN: where the processes of the stack see DATA. As root the checkout may be below a folder
# that only root may enter (/root). Then they run in a mount namespace with DATA bound to a place
# that they reach; seen from outside, the files are where they always were.
reach_data() {
  SEEN=$DATA
  is_root || return 0
  can_reach "$PG_USER" "$STAGE" && can_reach "$WORKER_USER" "$STAGE" && can_reach "$WEB_USER" "$STAGE" && return
  SEEN=/run/pg_shell/$(sha256sum <<<"$DATA" | head -c 12)
  mkdir -p -- "$SEEN"
  if ! can_reach "$PG_USER" "$SEEN" || ! unshare --mount mount --bind -- "$DATA" "$SEEN"; then
    die "the users $PG_USER and $WORKER_USER cannot enter $DATA, and it cannot be bound to a place they reach;
set PG_SHELL_DATA to a folder that everybody may enter, such as /var/lib/pg_shell"
  fi
}

# The names of the variables that a process gets besides PATH, LANG and TZ.
PASSED=()

# Replaces this (sub)shell by COMMAND, as USER: in a session of its own, so that Ctrl-C reaches
# only the script, which stops things in order; with a clean environment and no descriptor but
# the first three; and told to end by SIGNAL should the script be killed.
launch() { # USER SIGNAL COMMAND...
  local user=$1 signal=$2 name fd
  shift 2
  local drop=(setpriv --pdeathsig "$signal")
  is_root && drop+=(--reuid "$user" --regid "$user" --init-groups --inh-caps=-all)
  local clean=(env --ignore-environment "--default-signal=INT,QUIT,HUP,PIPE"
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
  for name in TZ "${PASSED[@]}"; do
    [[ -z ${!name+set} ]] || clean+=("$name=${!name}")
  done
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    ((fd <= 2)) || exec {fd}>&-
  done
  cd /
  if [[ $SEEN == "$DATA" ]]; then
    exec setsid "${drop[@]}" -- "${clean[@]}" "$@"
  fi
  # shellcheck disable=SC2016 # expanded by the inner shell
  exec setsid unshare --mount sh -ec 'mount --bind -- "$1" "$2"; shift 2; exec "$@"' \
    launch "$DATA" "$SEEN" "${drop[@]}" -- "${clean[@]}" "$@"
}

# The worker's settings may come from the environment; where its database is comes from here.
launch_worker() {
  PASSED=(RUST_BACKTRACE "${!PG_SHELL_@}")
  local shared_user=()
  [[ $PG_USER != "$WORKER_USER" ]] || shared_user=(--allow-postgres-user)
  launch "$WORKER_USER" TERM "$SEEN/stage/bin/exec-worker" \
    --database-url "host='$SEEN/socket' port=$PORT user=shell_worker dbname=pg_shell" "${shared_user[@]}"
}

# The web server; no command that it shows can reach the secret, for the workers run as another user.
launch_web() {
  PASSED=(RUST_BACKTRACE "${!PG_SHELL_@}")
  launch "$WEB_USER" TERM "$SEEN/stage/bin/pg-shell-web" --listen "127.0.0.1:$HTTP_PORT" \
    --public-url "${PG_SHELL_PUBLIC_URL:-http://localhost:$HTTP_PORT}" --jwt-secret-file "$SEEN/jwt_secret" \
    --database-url "host='$SEEN/socket' port=$PORT user=shell_authenticator dbname=pg_shell"
}

# Runs psql as the superuser. Its own configuration and the caller's PG* settings stay out of it.
superuser_psql() { # ARGUMENT...
  env -i PATH="$PATH" LANG=C.UTF-8 "$STAGE/usr/lib/postgresql/$PG_MAJOR/bin/psql" --no-psqlrc --quiet --no-align \
    --tuples-only --set=ON_ERROR_STOP=1 --host="$SOCKET" --port="$PORT" --username=postgres "$@"
}

running() { kill -0 "$1" 2>/dev/null; }

# Waits until a process has ended, at most SECONDS; false when it has not.
ended_within() { # SECONDS PID
  local deadline=$((SECONDS + $1))
  while running "$2"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# Ends the web server: it answers what was asked, and ends its streams.
stop_web() { # PID
  running "$1" || return 0
  kill -TERM "$1" 2>/dev/null
  ended_within 10 "$1" || kill -KILL "$1" 2>/dev/null || true
}

# Ends a worker: it finishes what runs; a second signal makes it give that up.
stop_worker() { # PID
  local patience=${PG_SHELL_STOP_SECONDS:-30}
  running "$1" || return 0
  kill -TERM "$1" 2>/dev/null
  ended_within "$patience" "$1" && return
  say "the worker is still busy after $patience s: it gives up what it runs"
  kill -TERM "$1" 2>/dev/null
  ended_within 10 "$1" || kill -KILL "$1" 2>/dev/null || true
}
