#!/usr/bin/env bash
# Builds pg_shell and lays it out in DIR with a private PostgreSQL: stage.sh DIR
#
# Postgres finds its libraries and share files relative to the running binary. So DIR holds real
# copies of the binaries and symbolic links to the system's files; the extension is added to DIR,
# and the system's own installation stays as it is.
source "$(dirname "$0")/lib.sh"

(($# == 1)) || die "usage: stage.sh DIR"
mkdir -p -- "$1"
STAGE=$(realpath -- "$1")
PREFIX=$STAGE/usr
PKGLIB=$PREFIX/lib/postgresql/$PG_MAJOR/lib
SHARE=$PREFIX/share/postgresql/$PG_MAJOR

# Copies a file unless the same bytes are there; by rename, so that what runs keeps what it has.
put() { # FILE DESTINATION
  cmp --silent -- "$1" "$2" && return
  mkdir -p -- "${2%/*}"
  cp -- "$1" "$2.new"
  chmod --reference="$1" -- "$2.new"
  chmod a+r -- "$2.new"
  mv -f -- "$2.new" "$2"
}

# Links every entry of a system folder into a real folder of the stage.
link_entries() { # FROM TO
  mkdir -p -- "$2"
  ln --symbolic --force --no-dereference --target-directory="$2" -- "$1"/*
}

stage_postgres() {
  local share system_lib binary
  share=$("$SYSTEM_PG/pg_config" --sharedir)
  system_lib=$("$SYSTEM_PG/pg_config" --libdir)
  for binary in "$SYSTEM_PG"/*; do
    [[ -L $binary ]] || put "$binary" "$PREFIX/lib/postgresql/$PG_MAJOR/bin/${binary##*/}"
  done
  # What belongs to pg_shell is never linked, should the system have a copy of it.
  link_entries "$("$SYSTEM_PG/pg_config" --pkglibdir)" "$PKGLIB"
  find "$PKGLIB" -maxdepth 1 -type l -name 'pg[_-]shell*' -delete
  [[ -d $SHARE/extension && ! -L $SHARE/extension ]] || rm -f -- "$SHARE/extension"
  mkdir -p -- "$SHARE/extension"
  find "$share" -mindepth 1 -maxdepth 1 ! -name extension \
    -exec ln --symbolic --force --no-dereference --target-directory="$SHARE" -- {} +
  link_entries "$share/extension" "$SHARE/extension"
  find "$SHARE/extension" -maxdepth 1 -type l -name 'pg_shell*' -delete
  ln -sfn -- /usr/include "$PREFIX/include"
  ln -sfn -- /usr/share/locale "$PREFIX/share/locale"
  ln -sfn -- "$system_lib" "$PREFIX/lib/${system_lib##*/}"
  [[ $("$PREFIX/lib/postgresql/$PG_MAJOR/bin/pg_config" --pkglibdir) == "$PKGLIB" ]] ||
    die "PostgreSQL at $SYSTEM_PG cannot be relocated into $STAGE"
}

stage_extension() {
  local package file
  pgrx_home
  package=$PGRX_HOME/package
  rm -rf -- "$package"
  cargo pgrx package --package pg_shell --pg-config "$PGRX_PG_CONFIG" --out-dir "$package"
  while IFS= read -r -d '' file; do
    put "$file" "$STAGE${file#"$package"}"
  done < <(find "$package" -type f -print0)
}

# The launcher is static: it starts in a fraction of the time, and needs no loader in a private root.
stage_binaries() {
  local release folder
  release=$(target_dir)/release
  # Together: each of them alone would have libraries built anew that it uses less of.
  cargo build --release --package exec-worker --package pg-shell-web --package confine-bash
  cargo rustc --release --package confine --bin pg-shell-launch -- \
    -C target-feature=+crt-static -C relocation-model=static
  put "$release/exec-worker" "$STAGE/bin/exec-worker"
  put "$release/pg-shell-web" "$STAGE/bin/pg-shell-web"
  for folder in "$STAGE/bin" "$PKGLIB"; do
    put "$release/pg-shell-launch" "$folder/pg-shell-launch"
    put "$release/libpg_shell_bash.so" "$folder/libpg_shell_bash.so"
  done
}

umask 022
stage_postgres
stage_extension
stage_binaries
# What has just been linked is the system's; only what is really here is made readable.
find "$STAGE" ! -type l ! -perm -a+r -exec chmod a+rX -- {} +
find "$STAGE" -type d ! -perm -a+rx -exec chmod a+rx -- {} +
