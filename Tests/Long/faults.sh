#!/bin/bash
# Every call of a workload fails in every way, every read has a wrong bit, in turn; random operations while calls fail.
# unit: runs with a fault
# goal: 20000
# seeds: 1
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# So many that no call and no way is left out.
TREERING_SEED=$SEED TREERING_CRASH_STATES=1000000 TREERING_OPERATIONS=50000 simulated FaultTests
