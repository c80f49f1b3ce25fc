#!/usr/bin/env bash
# Runs once, in a new cluster: the extension, and the passwords of the roles that log in.
set -euo pipefail

# The password is what stands between ":" and "@" in postgresql://role:password@host/database.
password_of() { # FILE
  local url
  url=$(<"$1")
  url=${url#*://*:}
  printf '%s' "${url%%@*}"
}

worker=$(password_of /run/secrets/worker_url)
authenticator=$(password_of /run/secrets/authenticator_url)
for password in "$worker" "$authenticator"; do
  [[ $password =~ ^[A-Za-z0-9_-]{16,}$ ]] || {
    echo "a password in docker/secrets/ is not 16 or more of A-Z a-z 0-9 _ -" >&2
    exit 1
  }
done

# By standard input: arguments are for everybody to see.
psql --set=ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<SQL
set log_statement = 'none';
create extension pg_shell;
alter role shell_worker login password '$worker';
alter role shell_authenticator login password '$authenticator';
SQL
