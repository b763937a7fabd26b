#!/bin/bash
# Files of very many pieces, attributes and removals: every request is answered, its bytes are right, and neither the lock nor memory is
# held for it. The slowest of each kind of request is shown, with what is in memory (warm) and what is not (cold); with LONG=1 for a
# million pieces and a hundred thousand attributes and removals.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
S=$WORK/store
M=$WORK/mnt
count=40000 others=8000
[ "$LONG" = 1 ] && count=1000000 others=100000
# What the README says a mount takes: staging, the cache of the index, and what the program itself needs.
cache=8 fixed=160

memory() { awk '/^VmRSS:/ {print int($2 / 1024)}' "/proc/$(daemon_of "$S")/status"; }
bounded() {
    local now
    now=$(memory)
    if [ "$now" -le $((16 + cache + fixed)) ]; then pass; else fail "$1: the serving process has $now MiB in memory"; fi
}
cold() { again "$S" "$M" "index_cache=${cache}M,defrag=off" && echo 3 >/proc/sys/vm/drop_caches 2>/dev/null; }

"$TREERING" format "$S" --capacity "$((1 + count / 250000 * 2))G" >/dev/null
start_mount "$S" "$M" "index_cache=${cache}M,defrag=off"
say "    $count pieces of one byte, $others attributes, $others removals"
check "making them" python3 "$HERE/bounds.py" make "$M" "$count" "$others"
bounded "after making them"
cold
for state in cold warm; do
    say "    $state:"
    for kind in stat seek read holes attributes list; do
        python3 "$HERE/bounds.py" "$kind" "$M" "$count" "$others" || fail "$kind, $state"
        [ $state = cold ] && cold
    done
done
bounded "after reading"
# One that changes them; each sees what the ones before it have left.
for kind in overwrite punch truncate copy remove; do
    cold
    python3 "$HERE/bounds.py" "$kind" "$M" "$count" "$others" || fail "$kind"
    is_mounted "$M" || { fail "the mount is gone after $kind" && finish; }
done
bounded "after changing them"
stop_mount "$S" "$M"
check_store "$S"
finish
