#!/bin/bash
# Hostile stores: 2,000 for each chunk, every structure changed and its checksums made right again, then mounted, checked, repaired, exported.
# unit: hostile stores
# goal: 1000000
# seeds: 2000
# seconds: 3600
set -u
set -o pipefail
TREERING_SEED=$SEED TREERING_FUZZ=$SEEDS \
    swift test -c release -Xswiftc -enable-testing -Xswiftc -DSIMULATION --scratch-path .build-tests --skip-build --filter HostileStoreTests 2>&1 |
    tee "$TMPDIR/hostile.log" | tail -n 40
code=$?
# "hostile stores: 2000 from seed 1: ..."
sed -n 's/^hostile stores: \([0-9]*\) from seed .*/count \1 hostile stores/p' "$TMPDIR/hostile.log"
exit $code
