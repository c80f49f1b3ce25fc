# shellcheck shell=bash
# The Postgres cluster of a stack: made once, checked, started. Sourced after launch.sh, never run.

PGDATA=
SEEN_BIN=

cluster_settings() {
  PGDATA=$DATA/pgdata
  SEEN_BIN=$SEEN/stage/usr/lib/postgresql/$PG_MAJOR/bin
}

# Made beside its place and moved there when whole: an interrupted initdb leaves nothing behind.
init_cluster() {
  if [[ -f $PGDATA/PG_VERSION ]]; then
    local version
    version=$(<"$PGDATA/PG_VERSION")
    [[ $version == "$PG_MAJOR" ]] ||
      die "$PGDATA is of PostgreSQL $version and PG_MAJOR is $PG_MAJOR: upgrade it with pg_upgrade, or set PG_SHELL_DATA to another folder"
    return
  fi
  say "making a new cluster in $PGDATA"
  rm -rf -- "$PGDATA.new"
  mkdir -m 700 -- "$PGDATA.new"
  is_root && chown "$PG_USER:" -- "$PGDATA.new"
  (launch "$PG_USER" TERM "$SEEN_BIN/initdb" --pgdata="$SEEN/pgdata.new" --username=postgres \
    --encoding=UTF8 --locale=C.UTF-8 --data-checksums --auth-local=peer --auth-host=scram-sha-256) \
    >"$DATA/log/initdb.log" 2>&1 || die "initdb failed: $(tail -n 5 "$DATA/log/initdb.log")"
  mv -- "$PGDATA.new" "$PGDATA"
}

# Who may log in. Written at every start.
write_access() {
  local superusers
  superusers=$(printf '%s\n' root "$(id -un)" | sort -u)
  printf '%s\n' '# Written by pg_shell at every start.' \
    'local all postgres     peer map=superuser' \
    'local all shell_worker peer map=worker' \
    'local all shell_authenticator peer map=web' \
    'local all all          scram-sha-256' \
    'host  all postgres,shell_worker,shell_authenticator 127.0.0.1/32 reject' \
    'host  all all          127.0.0.1/32 scram-sha-256' >"$PGDATA/pg_hba.conf"
  {
    say '# Written by pg_shell at every start: map, OS user, role.'
    local user
    for user in $superusers; do printf 'superuser "%s" postgres\n' "$user"; done
    printf 'worker "%s" shell_worker\n' "$WORKER_USER"
    printf 'web "%s" shell_authenticator\n' "$WEB_USER"
  } >"$PGDATA/pg_ident.conf"
  is_root || return 0
  chown "$PG_USER:" -- "$PGDATA/pg_hba.conf" "$PGDATA/pg_ident.conf"
}

# A postmaster.pid without its postmaster is what a crash or a power cut leaves. Its number may
# belong to another process by now, so look whether that process works in this cluster.
clear_stale_pid() {
  local pid
  [[ -f $PGDATA/postmaster.pid ]] || return 0
  read -r pid <"$PGDATA/postmaster.pid" || pid=
  if [[ $pid =~ ^[0-9]+$ && /proc/$pid/cwd -ef $PGDATA ]]; then
    say "a Postgres (process $pid) is still stopping in $PGDATA: waiting for it"
    ended_within 60 "$pid" || die "process $pid still runs in $PGDATA: stop it first"
  fi
  rm -f -- "$PGDATA/postmaster.pid" "$SOCKET"/.s.PGSQL.*
}

# Starts Postgres and waits until it answers; recovery after a crash may take its time.
start_postgres() {
  local log=$DATA/log/postgres.log
  (launch "$PG_USER" INT "$SEEN_BIN/postgres" -D "$SEEN/pgdata" -c port="$PORT" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories="\"$SEEN/socket\"" -c unix_socket_permissions=0777 -c cluster_name=pg_shell \
    -c hba_file="$SEEN/pgdata/pg_hba.conf" -c ident_file="$SEEN/pgdata/pg_ident.conf" \
    -c log_destination=stderr -c logging_collector=off -c "log_line_prefix=%m [%p] %q%u@%d ") >>"$log" 2>&1 &
  PG_PID=$!
  until superuser_psql --dbname=postgres --command='select 1' &>/dev/null; do
    if ! running "$PG_PID"; then
      PG_PID=
      grep -q 'Address already in use' <(tail -n 5 "$log") && die "port $PORT of 127.0.0.1 is taken: set PG_SHELL_PORT"
      tail -n 10 "$log" >&2
      die "Postgres did not start; its log is $log"
    fi
    sleep 0.1
  done
}

# What Postgres signs tokens with and the web server checks them with: made once, readable by that server only.
jwt_secret() {
  local file=$DATA/jwt_secret
  if [[ ! -s $file ]]; then
    (umask 077 && head -c 32 /dev/urandom | base64 --wrap=0 >"$file.new")
    is_root && chown "$WEB_USER:" -- "$file.new"
    mv -- "$file.new" "$file"
  fi
  # By standard input: arguments are for everybody to see. Postgres keeps it in postgresql.auto.conf, its own.
  printf "set log_statement = 'none';\nload 'pg_shell';\nalter system set pg_shell.jwt_secret = '%s';\n" "$(<"$file")" |
    superuser_psql --dbname=pg_shell
  superuser_psql --dbname=pg_shell --command='select pg_reload_conf()' >/dev/null
}

# Makes what is missing, and takes the extension to the version that is staged.
prepare_database() {
  if [[ -z $(superuser_psql --dbname=postgres --command="select 1 from pg_database where datname = 'pg_shell'") ]]; then
    superuser_psql --dbname=postgres --command='create database pg_shell'
  fi
  superuser_psql --dbname=pg_shell <<'SQL'
set client_min_messages = warning;
create extension if not exists pg_shell;
select default_version <> installed_version as outdated, installed_version, default_version
from pg_catalog.pg_available_extensions where name = 'pg_shell' \gset
\if :outdated
  \echo updating the extension from :installed_version to :default_version
  alter extension pg_shell update;
\endif
select not rolcanlogin as kept_out from pg_catalog.pg_roles where rolname = 'shell_worker' \gset
\if :kept_out
  alter role shell_worker login;
\endif
select not rolcanlogin as kept_out from pg_catalog.pg_roles where rolname = 'shell_authenticator' \gset
\if :kept_out
  alter role shell_authenticator login;
\endif
SQL
  jwt_secret
}
