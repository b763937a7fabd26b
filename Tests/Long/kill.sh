#!/bin/bash
# kill -9 of the serving process of a real mount under work; Tests/Mount/kill.sh does it.
# unit: kills
# goal: 500
# engines: ring posix
# seeds: 50
# seconds: 3600
export TREERING_KILLS=$SEEDS TREERING_KILL_SEED=$SEED
exec bash Tests/Mount/kill.sh
