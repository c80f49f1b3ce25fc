# What a command's first use of `trap` brings. The EXIT trap is taken, so the user's own is kept aside and
# run from it. In a subshell it is not. Other traps end before the state is written:
# they would print into it.
# shellcheck shell=bash disable=SC2064,SC2154

__pg_shell_return() { builtin return "$1"; }

__pg_shell_bye() {
  builtin local __pg_shell_again="$__pg_shell_save"
  builtin eval "$__pg_shell_save"
  [[ -n $__pg_shell_trap ]] || builtin return
  # The trap may move on, and may exit from within, so the state is saved before it and after it.
  [[ $__pg_shell_flags != *x* ]] || builtin set -x
  builtin eval "__pg_shell_return $__pg_shell_code"$'\n'"$__pg_shell_trap"
  { builtin set +x; builtin eval "$__pg_shell_again"; } 2>/dev/null
}

__pg_shell_watch() {
  builtin trap '{ __pg_shell_code=$? __pg_shell_flags=$- __pg_shell_options=$SHELLOPTS __pg_shell_shopts=$BASHOPTS
builtin trap - DEBUG ERR RETURN; builtin set +xv; } 2>/dev/null
__pg_shell_bye' EXIT
}

trap() {
  [[ $BASHPID == "$$" ]] || { builtin trap "$@"; builtin return; }
  if [[ -n ${__pg_shell_trap-} ]]; then builtin trap -- "$__pg_shell_trap" EXIT; else builtin trap - EXIT; fi
  builtin trap "$@"
  builtin local __pg_shell_status=$? __pg_shell_set
  __pg_shell_set=$(builtin trap -p EXIT)
  __pg_shell_trap=
  if [[ -n $__pg_shell_set ]]; then
    builtin eval "builtin set ${__pg_shell_set/#trap/--}"
    __pg_shell_trap=$2
  fi
  __pg_shell_watch
  builtin return "$__pg_shell_status"
}
