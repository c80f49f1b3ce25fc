# Writes the state, in fields that end in NUL: no shell value can hold one. state.rs reads them.
# shellcheck shell=bash disable=SC2154

builtin unset __pg_shell_command BASH_XTRACEFD
builtin unset -f trap
builtin set +efu +o posix
{
  # A shell that waited has this: from here to its second call all is gathered, and written once.
  builtin __pg_shell_gather
  # Else they are printed, too.
  builtin unset __pg_shell_save __pg_shell_traps
  builtin printf 'pg_shell state 1\0bash\0'
  builtin pwd; builtin printf '\0'
  builtin umask; builtin printf '\0'
  builtin printf '%s\0' "$__pg_shell_options0" "$__pg_shell_options" "$__pg_shell_shopts0" "$__pg_shell_shopts"
  builtin declare -p; builtin printf '\0'
  builtin declare -f; builtin declare -Fx; builtin printf '\0'
  builtin alias -p; builtin printf '\0pg_shell end\0'
  builtin __pg_shell_gather
} >&250 2>/dev/null
