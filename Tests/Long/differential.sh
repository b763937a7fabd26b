#!/bin/bash
# Random system calls compared with ext4, with the writeback cache off and on; Tests/Mount/differential.sh does it.
# unit: operations
# goal: 10000000
# engines: ring posix
# seeds: 5
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export TREERING_DIFFERENTIAL_SEED=$SEED TREERING_DIFFERENTIAL_RUNS=$SEEDS
mounted differential
