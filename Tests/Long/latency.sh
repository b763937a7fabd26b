#!/bin/bash
# How long a durable write of 4 KiB takes: on the host's own file system; beside another writer where there is much room; on a store that is 80 %
# full at rest, while the cleaner works without need (`treering clean`), and beside another writer who makes it work in need. Tells; of the times
# nothing is asserted. TREERING_LATENCY_MIB: the capacity of the store (1,024); TREERING_LATENCY_SECONDS: how long each takes (20).
# unit: rounds
# goal: 1
# engines: ring posix
# seeds: 1
# seconds: 1200
# shellcheck source=../Mount/lib.sh
. "$(dirname "$0")/../Mount/lib.sh"
need python3
capacity=${TREERING_LATENCY_MIB:-1024}
seconds=${TREERING_LATENCY_SECONDS:-20}
seed=${SEED:-1}
S=$WORK/store
M=$WORK/mnt
# measure NAME FILE
measure() {
    local name=$1 result
    result=$(timeout $((${seconds%.*} * 4 + 60)) python3 "$HERE/latency.py" "$2" "$seconds" "$seed") || fail "$name: the writer failed"
    read -r count p50 p99 p999 max <<<"$result"
    say "note latency $name: $count writes, p50 $p50 us, p99 $p99 us, p99.9 $p999 us, max $max us"
}

head -c 100000000 /dev/urandom >"$WORK/host"
sync "$WORK/host"
measure "host" "$WORK/host"
rm "$WORK/host"

# beside NAME : the same while another program writes as fast as it can; both together in $rate, writes a second, and what the log had to
# take for each 100 bytes of theirs in $amplification.
beside() {
    local asked written churning begun=$EPOCHSECONDS
    asked=$(figure "$M" appended_bytes) written=$(($(figure "$M" appended_bytes) + $(figure "$M" moved_bytes)))
    python3 "$HERE/scatter.py" "$M" 0 $((seed + 1)) >"$WORK/scattered" &
    churning=$!
    measure "$1" "$M/target"
    kill $churning
    wait $churning
    rate=$((($(cat "$WORK/scattered") + count) / (EPOCHSECONDS - begun)))
    asked=$(($(figure "$M" appended_bytes) - asked)) written=$(($(figure "$M" appended_bytes) + $(figure "$M" moved_bytes) - written))
    amplification=$((written * 100 / asked))
    say "note both writers: $rate writes a second, write amplification $amplification %"
}
# Room for all that is written: nothing is cleaned.
"$TREERING" format "$S" --capacity "$((capacity * 8))M" >/dev/null
start_mount "$S" "$M" clean=off
for name in f1 f2 f3 f4 f5 f6 f7 target; do head -c 20000000 /dev/urandom >"$M/$name"; done
"$TREERING" sync "$M"
beside "beside another writer, much room"
roomy=$rate
equal "nothing was cleaned" 0 "$(figure "$M" cleaned_segments)"
stop_mount "$S" "$M"
rm -rf "$S"

"$TREERING" format "$S" --capacity "${capacity}M" >/dev/null
start_mount "$S" "$M" clean=off
size=$(df --output=size -B1 "$M" | tail -n 1 | tr -d ' ')
share=$((size / 104 * 80 / 8 / 4096 * 4096))
for number in 1 2 3 4 5 6 7; do head -c "$share" /dev/urandom >"$M/f$number"; done
head -c "$share" /dev/urandom >"$M/target"
# A tenth of the store dies in small pieces.
check "scattering" timeout 600 python3 "$HERE/scatter.py" "$M" $((capacity * 256 / 10)) "$seed"
"$TREERING" sync "$M"
measure "at rest" "$M/target"
stop_mount "$S" "$M"

start_mount "$S" "$M"
(while :; do "$TREERING" clean "$M" || exit; done) >/dev/null 2>&1 &
cleaning=$!
measure "while cleaning" "$M/target"
kill $cleaning
wait $cleaning 2>/dev/null
cleaned=$(figure "$M" cleaned_segments)
equal "the cleaner worked" yes "$([ "${cleaned:-0}" -gt 0 ] && echo yes)"
say "note $cleaned segments cleaned meanwhile"

beside "beside another writer, cleaning in need"
share=$((rate * amplification / roomy))
say "note $(($(figure "$M" cleaned_segments) - cleaned)) segments cleaned meanwhile; $share % of what there is without cleaning, after amplification"
equal "nothing damaged" 0 "$(figure "$M" corruptions)"
stop_mount "$S" "$M"
check_store "$S"
[ "$FAILED" -eq 0 ] && say "count 1 rounds"
finish
