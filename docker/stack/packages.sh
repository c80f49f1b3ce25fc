#!/usr/bin/env bash
# Installs what is missing: packages.sh run|test|bench
source "$(dirname "$0")/lib.sh"

CARGO_PGRX=0.18.1

# The Debian packages for a purpose, one a line.
wanted() {
  local purpose=$1
  printf '%s\n' build-essential clang libclang-dev pkg-config util-linux \
    "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR"
  case $purpose in
    run) ;;
    test)
      printf '%s\n' python3-venv shellcheck sudo "postgresql-$PG_MAJOR-plpgsql-check" chromium fonts-dejavu-core
      # Other packages of Node than Debian's bring npm along, and conflict with Debian's.
      command -v node >/dev/null || printf 'nodejs\n'
      command -v npm >/dev/null || printf 'npm\n'
      ;;
    bench) printf '%s\n' bubblewrap "postgresql-$PG_MAJOR-plsh" ;;
    *) die "unknown purpose '$purpose': run, test or bench" ;;
  esac
}

installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Installing a Postgres makes and starts a system cluster unless told otherwise: nobody asked for
# one. The drop-in goes again, so that a later install does what its administrator expects.
install_debian() {
  local as_root=() no_cluster=/etc/postgresql-common/createcluster.d/pg_shell.conf
  is_root || as_root=(sudo -n)
  "${as_root[@]}" mkdir -p "${no_cluster%/*}"
  "${as_root[@]}" tee "$no_cluster" >/dev/null <<<"create_main_cluster = false"
  "${as_root[@]}" apt-get update -qq
  local status=0
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" || status=$?
  "${as_root[@]}" rm -f "$no_cluster"
  "${as_root[@]}" rmdir --ignore-fail-on-non-empty "${no_cluster%/*}"
  return "$status"
}

debian_packages() {
  command -v dpkg-query >/dev/null || die "needs a Debian-like system, or these installed by hand: $(wanted "$1" | xargs)"
  local package missing=()
  while read -r package; do
    installed "$package" || missing+=("$package")
  done < <(wanted "$1")
  ((${#missing[@]})) || return 0
  if ! is_root && ! sudo -n true 2>/dev/null; then
    die "not root and no sudo without a password; install these, then try again:
  apt-get install --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  install_debian "${missing[@]}"
}

cargo_pgrx() {
  command -v cargo >/dev/null || die "no cargo in PATH: install a Rust toolchain from https://rustup.rs"
  [[ $(cargo pgrx --version 2>/dev/null) == "cargo-pgrx $CARGO_PGRX" ]] && return
  say "installing cargo-pgrx $CARGO_PGRX"
  cargo install --locked cargo-pgrx --version "$CARGO_PGRX"
}

debian_packages "${1:-run}"
cargo_pgrx
