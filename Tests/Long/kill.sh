#!/bin/bash
# kill -9 of the serving process of a real mount under work; Tests/Mount/kill.sh does it.
# unit: kills
# goal: 500
# engines: ring posix
# seeds: 50
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export TREERING_KILLS=$SEEDS TREERING_KILL_SEED=$SEED
mounted kill
