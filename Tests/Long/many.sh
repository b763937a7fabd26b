#!/bin/bash
# A million files in one directory and a million over a tree; Tests/Mount/many.sh does it.
# unit: files
# goal: 2000000
# engines: ring posix
# seeds: 1
# seconds: 7200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export TREERING_FILES=1000000
mounted many
