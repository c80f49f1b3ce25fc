#!/bin/sh
# Runs a program with a variable from a file: with-secret NAME FILE PROGRAM [ARGUMENT...]
# An argument would be for everybody to see; both programs hide their environment from other processes.
set -eu
name=$1 value=$(cat "$2")
shift 2
export "$name=$value"
exec "$@"
