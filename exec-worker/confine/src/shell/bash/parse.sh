# A command of several lines is parsed whole before any of it runs, so that a syntax error changes nothing.
# With extglob too, in case the command itself switches that on. The message comes from bash itself.
# shellcheck shell=bash

__pg_shell_parse() {
  builtin local text="${__pg_shell_command-$BASH_EXECUTION_STRING}"
  (builtin eval "builtin set -n"$'\n'"$text") 2>/dev/null && builtin return 0
  (builtin shopt -s extglob; builtin eval "builtin set -n"$'\n'"$text") 2>/dev/null && builtin return 0
  builtin exec "$BASH" -n -c "$text"
}
__pg_shell_parse
builtin unset -f __pg_shell_parse
