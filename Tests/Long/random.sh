#!/bin/bash
# Random operations against the model, with remounts, kills, power cuts and small page caches.
# unit: operations
# goal: 10000000
# seeds: 10
# seconds: 1800
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
TREERING_SEED=$SEED TREERING_SEEDS=$SEEDS TREERING_OPERATIONS=50000 simulated RandomOperationsTests
