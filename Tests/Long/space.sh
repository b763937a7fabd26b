#!/bin/bash
# 40 GiB of overwriting at 50, 80 and 90 % of a store of 2 GiB each, filling up and emptying twenty times, a thousand copies of 100 MiB;
# Tests/Mount/space.sh does it.
# unit: rounds
# goal: 1
# engines: ring posix
# seeds: 1
# seconds: 7200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export LONG=1 SEED
mounted space
code=$?
[ $code -eq 0 ] && echo "count 1 rounds"
sed -n 's/^ *\([0-9]* %: write amplification.*\)/note \1/p' "$LOG"
exit $code
