#!/bin/bash
# kill -9 of the serving process in the middle of work: three times, or TREERING_KILLS times (CI and the long tier), with seeds from
# TREERING_KILL_SEED on, every other time on a store that is nearly full. After the next mount nothing that was acknowledged is lost, and
# the check is clean.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 git fio
S=$WORK/store
M=$WORK/mnt
rounds=${TREERING_KILLS:-3}
seed=${TREERING_KILL_SEED:-1}

# kills STORE MOUNTPOINT SEED COUNT UNIT [full]
kills() {
    if python3 "$HERE/kill/run.py" "$TREERING" "$ENGINE" "$1" "$2" "$WORK" "$3" "$4" "${@:6}" >"$WORK/out" 2>&1; then pass; else
        fail "kills from seed $3 on ${*:6}"
    fi
    sed 's/^/    /' "$WORK/out"
    # What the long tier adds up: "51 kills in 40 rounds, 1234 operations acknowledged; ..."
    sed -n "s/^\([0-9]*\) kills in .* rounds, \([0-9]*\) operations.*/count \1 $5\ncount \2 operations acknowledged before a kill/p" "$WORK/out"
}
kills "$S" "$M" "$seed" $((rounds - rounds / 2)) kills
# The other half on a store that is nine tenths full, with an eager cleaner.
"$TREERING" format "$WORK/full" --capacity 128M >/dev/null
kills "$WORK/full" "$WORK/mnt-full" "$seed" $((rounds / 2)) "kills of a full store" full
rm -rf "$WORK/full"

# acknowledged COUNT LOG... : waits until each log has so many lines; on a busy machine programs take their time to start.
acknowledged() {
    local count=$1 log lines _
    shift
    for log in "$@"; do
        for _ in $(seq 300); do
            lines=$(grep -c '' "$log" 2>/dev/null)
            [ "${lines:-0}" -ge "$count" ] && break
            sleep 0.1
        done
    done
}
# With the kernel's writeback cache what was closed or synced is kept.
start_mount "$S" "$M" writeback_cache=on
python3 "$HERE/kill/closed.py" "$M" "$WORK/closed.log" 2>/dev/null &
loop=$!
acknowledged 100 "$WORK/closed.log"
sleep 0.5
kill_mount "$S" "$M"
wait $loop 2>/dev/null
start_mount "$S" "$M"
check "writeback cache: everything closed is there" python3 - "$M" "$WORK/closed.log" <<'P'
import sys
numbers = [int(line) for line in open(sys.argv[2])]
assert len(numbers) > 10, f"only {len(numbers)} files"
for number in numbers:
    found = open(f"{sys.argv[1]}/closed{number}", "rb").read()
    assert found == bytes([number % 255 + 1]) * (number * 37 % 20000), f"closed{number}: {len(found)} bytes"
P
# Somebody removes the staging file, as session managers do at logout: the mount goes on in a file in the store.
again "$S" "$M"
check "the mount answers" "$TREERING" stats "$M" --json
staging=$(find /dev/shm -name "$(staging_of "$S")-*" | head -n 1)
check "staging lies in shared memory" test -n "$staging"
rm -f "$staging"
for _ in $(seq 50); do ls "$S"/staging-* >/dev/null 2>&1 && break; sleep 0.1; done
check "staging moved into the store" bash -c 'ls "$0"/staging-*' "$S"
for number in $(seq 200); do echo "$number" >"$M/moved$number"; done
kill_mount "$S" "$M"
start_mount "$S" "$M"
equal "everything acknowledged after staging moved is there" "$(seq 200 | sort)" "$(cat "$M"/moved* | sort)"
rm -f "$M"/moved*
# Half a gigabyte on its way to the disk: what the dead process still writes must not reach what its successor writes.
flight=$((512 * 1024 * 1024))
if [ "$(df --output=avail -B1 /dev/shm | tail -n 1)" -gt $((flight * 3)) ]; then
    again "$S" "$M" staging=1G
    floods=()
    for which in 1 2; do
        python3 "$HERE/kill/flood.py" "$M" "$WORK/flood$which.log" $which 2>/dev/null &
        floods+=($!)
    done
    acknowledged 20 "$WORK/flood1.log" "$WORK/flood2.log"
    sleep 0.4
    kill_mount "$S" "$M"
    wait "${floods[@]}" 2>/dev/null
    start_mount "$S" "$M"
    check "512 MiB in flight: everything acknowledged is there" python3 - "$M" "$WORK" <<'P'
import sys
total = 0
for which in (1, 2):
    numbers = [int(line) for line in open(f"{sys.argv[2]}/flood{which}.log")]
    total += len(numbers)
    with open(f"{sys.argv[1]}/flood{which}", "rb") as file:
        for number in numbers:
            assert file.read(1 << 20) == bytes([(number + which) % 255 + 1]) * (1 << 20), f"flood{which}, MiB {number}"
print(total)
assert total > 20, total
P
    rm -f "$M"/flood*
fi
stop_mount "$S" "$M"
check_store "$S"
finish
