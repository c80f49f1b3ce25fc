#!/usr/bin/env bash
# Builds everything into the folder `stage` of cargo's target folder.
source "$(dirname "$0")/lib.sh"

exec docker/stack/stage.sh "$(target_dir)/stage"
