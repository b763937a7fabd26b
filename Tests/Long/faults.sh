#!/bin/bash
# Every call of a workload fails in every way, every read has a wrong bit, in turn; random operations while calls fail.
# unit: runs with a fault
# goal: 20000
# seeds: 1
# seconds: 3600
set -u
set -o pipefail
# So many that no call and no way is left out.
TREERING_SEED=$SEED TREERING_CRASH_STATES=1000000 TREERING_OPERATIONS=50000 \
    swift test -c release -Xswiftc -enable-testing -Xswiftc -DSIMULATION --scratch-path .build-tests --skip-build --filter FaultTests 2>&1 |
    tee "$TMPDIR/faults.log"
code=$?
# "faults at 93 calls: (runs: 465, ...", "wrong bits in 28 reads: ..."
awk 'match($0, /runs: [0-9]+/) { runs += substr($0, RSTART + 6) } match($0, /wrong bits in [0-9]+/) { runs += substr($0, RSTART + 14) }
    END { print "count", runs + 0, "runs with a fault" }' "$TMPDIR/faults.log"
exit $code
