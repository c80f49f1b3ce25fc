# The EXIT trap that saves the state. Its first lines note what saving itself changes, and are never traced.
# shellcheck shell=bash disable=SC2016,SC2154

builtin trap '{ __pg_shell_code=$? __pg_shell_flags=$- __pg_shell_options=$SHELLOPTS __pg_shell_shopts=$BASHOPTS
builtin set +xv; } 2>/dev/null
builtin eval "$__pg_shell_save"' EXIT
