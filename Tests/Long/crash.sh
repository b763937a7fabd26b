#!/bin/bash
# Crash states: workloads cut off at their writes, recovered, compared with the model, crashed again.
# unit: crash states
# goal: 1000000
# seeds: 1
# seconds: 3600
set -u
set -o pipefail
TREERING_SEED=$SEED TREERING_CRASH_STATES=20000 \
    swift test -c release -Xswiftc -enable-testing -Xswiftc -DSIMULATION --scratch-path .build-tests --skip-build --filter CrashEnumerationTests 2>&1 |
    tee "$TMPDIR/crash.log"
code=$?
# "mixed operations: 8 runs: 2000 crash states, 3100 of a second crash, 248 kills, ..."
awk 'match($0, /[0-9]+ crash states/) { states += substr($0, RSTART) } match($0, /[0-9]+ of a second crash/) { second += substr($0, RSTART) }
    match($0, /[0-9]+ kills/) { kills += substr($0, RSTART) }
    END { print "count", states + 0, "crash states"; print "count", second + 0, "states of a second crash"; print "count", kills + 0, "simulated kills" }' \
    "$TMPDIR/crash.log"
exit $code
