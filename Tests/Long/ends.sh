#!/bin/bash
# Ends of sessions with thousands of cold reads on their way; Tests/Mount/ends.sh does it.
# unit: ends of sessions
# goal: 600
# engines: ring posix
# seeds: 10
# seconds: 1800
export TREERING_ENDS=$SEEDS
exec bash Tests/Mount/ends.sh
