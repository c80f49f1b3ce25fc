# Read by bash before a session's command (BASH_ENV). What follows it is the session's state.
# shellcheck shell=bash

builtin unset BASH_ENV
builtin shopt -s expand_aliases
__pg_shell_options0=$SHELLOPTS
__pg_shell_shopts0=$BASHOPTS

# A command of several lines is parsed whole before any of it runs, so that a syntax error changes nothing.
# With extglob too, in case the command itself switches that on. The message comes from bash itself.
__pg_shell_parse() {
  builtin local text="${__pg_shell_command-$BASH_EXECUTION_STRING}"
  [[ $text == *$'\n'* ]] || builtin return 0
  (builtin eval "builtin set -n"$'\n'"$text") 2>/dev/null && builtin return 0
  (builtin shopt -s extglob; builtin eval "builtin set -n"$'\n'"$text") 2>/dev/null && builtin return 0
  builtin exec "$BASH" -n -c "$text"
}

# The state, in fields that end in NUL: no shell value can hold one.
__pg_shell_save() {
  builtin unset __pg_shell_command BASH_XTRACEFD
  builtin unset -f trap __pg_shell_parse __pg_shell_watch
  builtin set +efu +o posix
  {
    builtin printf 'pg_shell state 1\0bash\0'
    builtin pwd; builtin printf '\0'
    builtin umask; builtin printf '\0'
    builtin printf '%s\0' "$__pg_shell_options0" "$__pg_shell_options" "$__pg_shell_shopts0" "$__pg_shell_shopts"
    builtin declare -p; builtin printf '\0'
    builtin declare -f; builtin declare -Fx; builtin printf '\0'
    builtin alias -p; builtin printf '\0pg_shell end\0'
  } >&250 2>/dev/null
}

__pg_shell_return() { builtin return "$1"; }

__pg_shell_bye() {
  __pg_shell_save
  [[ -n ${__pg_shell_trap-} ]] || builtin return
  # The trap may move on, and may exit from within, so the state is saved before it and after it.
  [[ $__pg_shell_flags != *x* ]] || builtin set -x
  builtin eval "__pg_shell_return $__pg_shell_code"$'\n'"$__pg_shell_trap"
  { builtin set +x; __pg_shell_save; } 2>/dev/null
}

__pg_shell_watch() {
  builtin trap '{ __pg_shell_code=$? __pg_shell_flags=$- __pg_shell_options=$SHELLOPTS __pg_shell_shopts=$BASHOPTS
builtin set +xv; } 2>/dev/null
__pg_shell_bye' EXIT
}

# The EXIT trap is taken, so the user's own is kept aside and run from it. In a subshell it is not.
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
