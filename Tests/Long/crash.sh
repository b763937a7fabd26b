#!/bin/bash
# Crash states: workloads cut off at their writes, recovered, compared with the model, crashed again.
# unit: crash states
# goal: 1000000
# seeds: 1
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
TREERING_SEED=$SEED TREERING_CRASH_STATES=20000 simulated CrashEnumerationTests
