# The last lines of a bash that waits: in the process that runs a command, what restores the session is the
# value of a variable by then. Nothing follows, for the session may have its shell trace.
# shellcheck shell=bash disable=SC2154

__pg_shell_wait
builtin eval "builtin unset __pg_shell_session"$'\n'"$__pg_shell_session"
