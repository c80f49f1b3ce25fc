# Read by bash before a session's command (BASH_ENV): what the launcher appends to it is parse.sh for a
# command of several lines, save.sh and traps.sh as the values of variables, watch.sh, and the session's
# state. Short, because every command pays for its parsing; what is seldom needed is a value until then.
# shellcheck shell=bash disable=SC2064,SC2154

builtin unset BASH_ENV
builtin shopt -s expand_aliases
__pg_shell_options0=$SHELLOPTS
__pg_shell_shopts0=$BASHOPTS
trap() { builtin eval "$__pg_shell_traps"; trap "$@"; }
