#!/bin/bash
# Random operations against the model, with remounts, kills, power cuts and small page caches.
# unit: operations
# goal: 10000000
# seeds: 10
# seconds: 1800
set -u
set -o pipefail
TREERING_SEED=$SEED TREERING_SEEDS=$SEEDS TREERING_OPERATIONS=50000 \
    swift test -c release -Xswiftc -enable-testing -Xswiftc -DSIMULATION --scratch-path .build-tests --skip-build --filter RandomOperationsTests 2>&1 |
    tee "$TMPDIR/random.log"
code=$?
# "random operations, seed 1: 50000 operations; comparison 101, kill 70, oracle 44, power cut 120, ..."
awk '/^random operations, seed [0-9]+: / { total += $5; for (i = 2; i < NF; i++) { if ($i == "cut") cuts += $(i + 1); if ($i == "kill") kills += $(i + 1) } }
    END { print "count", total + 0, "operations"; print "count", cuts + 0, "power cuts"; print "count", kills + 0, "simulated kills" }' "$TMPDIR/random.log"
exit $code
