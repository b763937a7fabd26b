#!/bin/bash
# How many times the serving process allocates memory for an operation, counted by a library in front of malloc(3), so that what was got rid of
# does not come back. One of them is libfuse's, for the request.
# alone: what others do at the same time would be counted as well.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 gcc
S=$WORK/store
M=$WORK/mnt
check "the counter" gcc -O2 -shared -fPIC -o "$WORK/counter.so" "$HERE/allocations/counter.c" || finish
head -c 4096 /dev/zero >"$WORK/count"
ALLOCATIONS=$WORK/count LD_PRELOAD=$WORK/counter.so start_mount "$S" "$M"
python3 "$HERE/allocations/count.py" "$M" "$WORK/count" && pass || fail "an operation allocates more than it did, or nothing is counted"
stop_mount "$S" "$M"
check_store "$S"
finish
