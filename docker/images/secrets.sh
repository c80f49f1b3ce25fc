#!/usr/bin/env bash
# Makes the secrets that compose.yml names, unless they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

random() { head -c 32 /dev/urandom | base64 --wrap=0 | tr '+/' '-_' | tr -d '='; }

mkdir -p secrets
# Containers read them as users of their own, so the folder keeps others out, not the files.
chmod 700 secrets
[[ -s secrets/jwt_secret ]] || random >secrets/jwt_secret
[[ -s secrets/superuser_password ]] || random >secrets/superuser_password
[[ -s secrets/worker_url ]] || printf 'postgresql://shell_worker:%s@postgres/pg_shell' "$(random)" >secrets/worker_url
[[ -s secrets/authenticator_url ]] ||
  printf 'postgresql://shell_authenticator:%s@postgres/pg_shell' "$(random)" >secrets/authenticator_url
chmod 644 secrets/*
