#!/bin/bash
# All of stress-ng's file-system stressors that ext4 survives here, ten seconds each; Tests/Mount/stress.sh does it.
# unit: rounds of all stressors
# goal: 1
# engines: ring posix
# seeds: 1
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export LONG=1
mounted stress
code=$?
[ $code -eq 0 ] && echo "count 1 rounds of all stressors"
echo "note $(grep -c ': passed' "$LOG") stressors passed, $(grep -c 'not counted' "$LOG") not counted"
exit $code
