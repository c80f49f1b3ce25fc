# Read by sh before a session's command, where there is no bash. What follows it is the session's state.
# shellcheck shell=sh disable=SC3044

__pg_shell_bye() {
  set +efux
  {
    printf 'pg_shell state 1\0sh\0'
    pwd; printf '\0'
    umask; printf '\0'
    set +o; printf '\0'
    export -p; printf '\0'
    alias; printf '\0pg_shell end\0'
  } >&9 2>/dev/null
}
trap '__pg_shell_bye' EXIT
