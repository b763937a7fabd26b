#!/bin/bash
# All of stress-ng's file-system stressors that ext4 survives here, ten seconds each; Tests/Mount/stress.sh does it.
# unit: rounds of all stressors
# goal: 1
# engines: ring posix
# seeds: 1
# seconds: 3600
export LONG=1
set -o pipefail
bash "$(dirname "$0")/../Mount/stress.sh" | tee "$TMPDIR/stress.log"
code=$?
[ $code -eq 0 ] && echo "count 1 rounds of all stressors"
echo "note $(grep -c ': passed' "$TMPDIR/stress.log") stressors passed, $(grep -c 'not counted' "$TMPDIR/stress.log") not counted"
exit $code
