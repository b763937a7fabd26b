#!/bin/bash
# Random system calls compared with ext4, with the writeback cache off and on; Tests/Mount/differential.sh does it.
# unit: operations
# goal: 10000000
# engines: ring posix
# seeds: 5
# seconds: 3600
export TREERING_DIFFERENTIAL_SEED=$SEED TREERING_DIFFERENTIAL_RUNS=$SEEDS
set -o pipefail
bash "$(dirname "$0")/../Mount/differential.sh" | tee "$TMPDIR/differential.log"
code=$?
awk 'match($0, /differential: .*: [0-9]+ operations in/) { for (i = 2; i < NF; i++) if ($(i + 1) == "operations") total += $i } END { print "count", total + 0, "operations" }' "$TMPDIR/differential.log"
exit $code
