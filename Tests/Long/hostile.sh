#!/bin/bash
# Hostile stores: 2,000 for each chunk, every structure changed and its checksums made right again, then mounted, checked, repaired, exported.
# unit: hostile stores
# goal: 1000000
# seeds: 2000
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
TREERING_SEED=$SEED TREERING_FUZZ=$SEEDS simulated HostileStoreTests | tail -n 40
