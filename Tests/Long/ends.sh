#!/bin/bash
# Ends of sessions with thousands of cold reads on their way; Tests/Mount/ends.sh does it.
# unit: ends of sessions
# goal: 600
# engines: ring posix
# seeds: 10
# seconds: 1800
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export TREERING_ENDS=$SEEDS
mounted ends
