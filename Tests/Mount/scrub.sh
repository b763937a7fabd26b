#!/bin/bash
# A mounted store is checked beside its work: clean, damaged behind its back, one at a time, ended with its command, by whom; and beside
# writers, removals, copies and an eager cleaner nothing is taken for damage. Another uuid for a copied store.
# TREERING_SCRUB_SECONDS: how long beside other work (15; with LONG=1 300). TREERING_SCRUB_OPTIONS: with these options.
# TREERING_SEED: what the writers do (drawn anew unless told).
# long
# shellcheck source=lib.sh disable=SC2016
. "$(dirname "$0")/lib.sh"
need python3
S=$WORK/store M=$WORK/mnt
# scrub CODE ARGUMENTS... : `treering check` ends with this code; what it said is in $WORK/said.
scrub() {
    local expected=$1 code
    shift
    timeout 120 "$TREERING" check "$@" >"$WORK/said" 2>&1
    code=$?
    equal "exit code of check $*: $(tail -n 2 "$WORK/said" | tr '\n' ' ')" "$expected" $code
}
said() { if grep -qE -- "$1" "$WORK/said"; then pass; else fail "check did not say '$1' but: $(head -n 5 "$WORK/said")"; fi; }
# told : the blocks whose data does not match, each with its file and place.
told() {
    sed -n 's/.*: \(\/.*\) (inode [0-9]*): bytes \([0-9]*\)\.\.<.* the checksum of the data does not match .*/\1 \2/p' "$WORK/said" | sort
}

# MARK: clean

"$TREERING" format "$S" --capacity 256M
start_mount "$S" "$M"
check "a tree" python3 "$HERE/scrub/tree.py" "$M" 1
check "sync" "$TREERING" sync "$M"
equal "no scrub yet" 0 "$(figure "$M" scrub_last_result)"
scrub 0 "$M" --rate 0
said ': clean: [0-9]+ .iB read, [0-9]+ blocks of data'
scrub 0 "$S" --rate 0
said ': clean: '
equal "stats tell of it" 1 "$(figure "$M" scrub_last_result)"
equal "stats tell how much" yes "$([ "$(figure "$M" scrub_last_bytes)" -gt 5000000 ] && echo yes)"

# MARK: what is refused

for option in --repair --rebuild-index --new-uuid; do
    scrub 8 "$M" "$option"
    said "is mounted on .* and $option needs the store to itself"
    scrub 8 "$S" "$option"
    said "needs the store to itself"
done
scrub 16 "$M" --rate nothing
scrub 16 "$S" --new-uuid --repair

# MARK: rate, progress, one at a time, its end

begun=$SECONDS
scrub 0 "$M" --rate 4M
equal "it keeps to its rate" yes "$([ $((SECONDS - begun)) -ge 1 ] && echo yes)"
said ': [1-9]0? ?[0-9]* % of [0-9]+ .iB'
"$TREERING" check "$M" --rate 100K >"$WORK/first" 2>&1 &
first=$!
for _ in $(seq 50); do
    [ "$(figure "$M" scrub_running)" = 1 ] && break
    sleep 0.1
done
equal "stats show that it runs" 1 "$(figure "$M" scrub_running)"
equal "stats show how much there is" yes "$([ "$(figure "$M" scrub_total_bytes)" -gt 5000000 ] && echo yes)"
scrub 8 "$M"
said 'it is being checked already'
kill -INT $first
wait $first
equal "exit code after Ctrl-C" 32 $?
equal "it said so" yes "$(grep -q 'ended before it was through' "$WORK/first" && echo yes)"
equal "it runs no more" 0 "$(figure "$M" scrub_running)"
equal "stats tell that it was not through" 3 "$(figure "$M" scrub_last_result)"
# Killed, it says nothing; the scrub ends by itself.
"$TREERING" check "$M" --rate 100K >/dev/null 2>&1 &
first=$!
sleep 1
kill -9 $first
wait $first 2>/dev/null
for _ in $(seq 150); do
    [ "$(figure "$M" scrub_running)" = 0 ] && break
    sleep 0.1
done
equal "it ends when its command is killed" 0 "$(figure "$M" scrub_running)"
scrub 0 "$M" --rate 0
# It goes with the mount, too.
"$TREERING" check "$M" --rate 100K >"$WORK/first" 2>&1 &
first=$!
sleep 1
kill "$(daemon_of "$S")"
wait_gone "$(daemon_of "$S")" 20 || fail "the mount does not end while it is checked"
wait $first
equal "exit code when the mount ends" yes "$(case $? in 8 | 32) echo yes ;; esac)"
for _ in $(seq 50); do is_mounted "$M" || break && sleep 0.1; done
check_store "$S"

# MARK: damage

start_mount "$S" "$M"
check "sync" "$TREERING" sync "$M"
python3 "$HERE/scrub/flip.py" "$S/segments" "$M" 7 | sort >"$WORK/flipped"
equal "seven blocks were damaged" 7 "$(wc -l <"$WORK/flipped")"
scrub 4 "$M" --rate 0
equal "exactly what was damaged is told" "" "$(diff "$WORK/flipped" <(told))"
said ': 7 errors: '
equal "stats tell of damage" 2 "$(figure "$M" scrub_last_result)"
equal "stats tell how much of it" 7 "$(figure "$M" scrub_last_findings)"
again "$S" "$M" ro
scrub 4 "$S"
said ': 7 errors: '
stop_mount "$S" "$M"
timeout 120 "$TREERING" check "$S" --data >"$WORK/said" 2>&1
equal "an offline check tells the same" "" "$(diff "$WORK/flipped" <(told))"
scrub 1 "$S" --repair

# MARK: beside other work

S=$WORK/busy M=$WORK/mnt-busy
"$TREERING" format "$S" --capacity 256M
start_mount "$S" "$M" "clean=eager${TREERING_SCRUB_OPTIONS:+,$TREERING_SCRUB_OPTIONS}"
seconds=${TREERING_SCRUB_SECONDS:-$([ "$LONG" = 1 ] && echo 300 || echo 15)}
seed=${TREERING_SEED:-$RANDOM}
for worker in 1 2; do
    python3 "$HERE/scrub/work.py" "$M/w$worker" "$seconds" $((seed + worker)) >"$WORK/worker$worker" 2>&1 &
    workers[worker]=$!
done
count=0 wrong=0
end=$((SECONDS + seconds))
while [ $SECONDS -lt $end ]; do
    timeout 60 "$TREERING" check "$M" --rate 0 >"$WORK/said" 2>&1 || {
        wrong=$((wrong + 1))
        cp "$WORK/said" "$WORK/wrong"
    }
    count=$((count + 1))
done
for worker in 1 2; do
    wait "${workers[worker]}"
    code=$?
    equal "worker $worker (seed $seed): $(tail -n 1 "$WORK/worker$worker")" 0 $code
done
equal "scrubs that found what is not there (seed $seed): $(head -n 3 "$WORK/wrong" 2>/dev/null)" 0 $wrong
say "    $count scrubs beside two writers, $(figure "$M" cleaned_segments) segments cleaned; $(tail -n 1 "$WORK/worker1")"
equal "there was cleaning" yes "$([ "$(figure "$M" cleaned_segments)" -gt 0 ] && echo yes)"
equal "nothing damaged" 0 "$(figure "$M" corruptions)"
stop_mount "$S" "$M"
check_store "$S"

# MARK: by whom

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && command -v unshare >/dev/null; then
    chmod 755 "$WORK"
    cp "$TREERING" "$WORK/treering"
    chmod 755 "$WORK/treering"
    start_mount "$S" "$M" allow_other
    setpriv --reuid=65534 --regid=65534 --clear-groups "$WORK/treering" check "$M" >"$WORK/said" 2>&1
    equal "another user may not" 8 $?
    said 'only root and the user who serves the mount'
    stop_mount "$S" "$M"
fi

# MARK: another uuid

uuid() { "$TREERING" dump "$1" --superblock | sed -n 's/^  store uuid: //p' | sort -u; }
T=$WORK/copy N=$WORK/mnt-copy
cp -a "$S" "$T"
old=$(uuid "$S")
equal "a copy has the same uuid" "$old" "$(uuid "$T")"
scrub 0 "$T" --new-uuid
said "its uuid is .* now; it was $old"
new=$(uuid "$T")
equal "one uuid in both slots" 1 "$(wc -w <<<"$new")"
if [ "$new" != "$old" ]; then pass; else fail "the uuid is as it was"; fi
equal "the original keeps its own" "$old" "$(uuid "$S")"
check_store "$T"
# Both at the same time, and each killed: staging is found by its own store.
start_mount "$S" "$M"
start_mount "$T" "$N"
assert_same_tree "the copy" "$M" "$N"
echo original >"$M/only here"
echo copy >"$N/only there"
equal "staging has the store's uuid" yes "$(ls /dev/shm/treering-"$new"-* >/dev/null 2>&1 && echo yes)"
kill_mount "$S" "$M"
kill_mount "$T" "$N"
start_mount "$S" "$M"
equal "the original has what it acknowledged" original "$(cat "$M/only here")"
stop_mount "$S" "$M"
# Killed: what is in staging is taken in first, under the old name.
scrub 0 "$T" --new-uuid
said 'recovered [0-9]+ operations'
equal "another one once more" no "$([ "$(uuid "$T")" = "$new" ] && echo yes || echo no)"
rm -f /dev/shm/treering-"$new"-*
start_mount "$T" "$N"
equal "the copy has what it acknowledged" copy "$(cat "$N/only there")"
scrub 0 "$N" --rate 0
stop_mount "$T" "$N"
scrub 1 "$T" --rebuild-index
scrub 0 "$T" --data

# A mount that does not answer holds up nobody who asks for another store.
start_mount "$S" "$M"
kill -STOP "$(daemon_of "$S")"
exec 9<>"$T/lock"
flock 9
timeout 30 "$TREERING" check "$T" >"$WORK/said" 2>&1 9>&-
equal "beside a mount that does not answer" 8 $?
said 'is in use by process'
exec 9>&-
kill -CONT "$(daemon_of "$S")"
stop_mount "$S" "$M"
finish
