#!/bin/bash
# The POSIX suite with the checks that take seconds, on ext4 and on mounts with every option that matters; Tests/Mount/posix.sh does it.
# unit: rounds of the POSIX suite
# goal: 1
# engines: ring posix
# seeds: 1
# seconds: 3600
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export LONG=1
mounted posix
code=$?
[ $code -eq 0 ] && echo "count 1 rounds of the POSIX suite"
sed -n 's/^ *\([0-9]* assertions.*\)/note \1/p' "$LOG"
exit $code
