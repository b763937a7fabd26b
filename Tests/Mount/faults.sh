#!/bin/bash
# System calls of the serving process fail, one or many of them: on the store's files and on staging (faults/calls.c). What can be done again is done
# again, unnoticed; of everything else programs get an honest error, nothing that was synced is lost, and the next mount finds it.
# LONG=1: each of the first calls of a kind in turn.
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 gcc
check "the library in front" gcc -O2 -shared -fPIC -o "$WORK/faults.so" "$HERE/faults/calls.c" -ldl || finish
S=$WORK/store
M=$WORK/mnt
mkdir "$M"
round=0

hits() { stat -c %s "$WORK/hits" 2>/dev/null || echo 0; }
# served : ends whatever mount there is, however it ended up.
served() {
    local pid try
    pid=$(daemon_of "$S")
    for try in $(seq 50); do
        is_mounted "$M" || break
        fusermount3 -u "$M" 2>/dev/null
        sleep 0.1
    done
    is_mounted "$M" && fail "$1: cannot be unmounted (try $try)"
    wait_gone "$pid" "$LEAVE_SECONDS" || fail "$1: the serving process stays"
}
# faulty FAULT [OPTIONS] : mounts, and the mount meets this fault.
faulty() {
    FAULT=$1 FAULT_STORE=$S FAULT_HITS=$WORK/hits LD_PRELOAD=$WORK/faults.so \
        timeout 60 "$TREERING" mount "$S" "$M" -o "engine=$ENGINE${2:+,$2}"
}
# under FAULT [strict [MOUNT OPTIONS]] : a mount that meets this fault, then one that does not. What it said in $said.
under() {
    local fault=$1 kind=${2:-} options=${3:-} code
    round=$((round + 1))
    rm -rf "$S" "$WORK/hits" "$WORK/memory"
    cp -a "$WORK/template" "$S"
    said=$(faulty "$fault" "$options" 2>&1)
    code=$?
    if [ $code -ne 0 ]; then
        [ "$kind" = strict ] && fail "$fault: cannot be mounted: $said"
        [ $code -ge 124 ] && fail "$fault: the mount ended with $code: $said"
        grep -q '^treering: .*: ' <<<"$said" || fail "$fault: the mount fails without a word: $said"
        is_mounted "$M" && fail "$fault: the mount failed, and is there"
        [[ $fault != *:ENOSPC:* ]] || grep -q 'mount it with -o ro' <<<"$said" || fail "$fault: no advice: $said"
    else
        DAEMONS+=("$(daemon_of "$S")")
        # shellcheck disable=SC2086
        said=$(timeout 100 python3 "$HERE/faults/work.py" work "$M" "$WORK/memory" $round $kind 2>&1) || fail "$fault: $(tail -n 1 <<<"$said")"
        served "$fault"
    fi
    said=${said##*$'\n'}
    [ "$(hits)" -gt 0 ] || [ -z "$kind" ] || fail "$fault: nothing was hit"
    start_mount "$S" "$M"
    [ ! -e "$WORK/memory" ] || check "$fault: what was synced is there" timeout 60 python3 "$HERE/faults/work.py" verify "$M" "$WORK/memory"
    check "$fault: what was there before is there" cmp "$WORK/before" "$M/before"
    stop_mount "$S" "$M"
    check_store "$S"
}

"$TREERING" format "$S" --capacity 64M >/dev/null
start_mount "$S" "$M"
head -c 500000 /dev/urandom >"$WORK/before"
cp "$WORK/before" "$M/before"
stop_mount "$S" "$M"
mv "$S" "$WORK/template"

# What can be done again, or in another way: nobody notices.
for fault in pwritev:EINTR:1:2 pwritev:EAGAIN:1:2 pwritev:SHORT:1:2 pwritev2:EINTR:1:2 pwritev2:EAGAIN:1:2 pwritev2:SHORT:1:2 \
    pwritev2:EOPNOTSUPP:1:1 \
    preadv:EINTR:1:2 preadv:EAGAIN:1:2 preadv:SHORT:1:2 fdatasync:EINTR:1:2 fallocate:EINTR:1:2 fallocate:EOPNOTSUPP:1:1 \
    posix_fallocate:ENOSPC:1:0 mmap:ENOMEM:1:0; do
    under "$fault" strict
    equal "$fault" "no call failed" "$said"
    say "    $fault: $(hits) times"
done

# What cannot.
tally=0
for number in $([ "$LONG" = 1 ] && seq 60 || echo 1 3 8 30); do
    for call in pwritev:EIO pwritev2:EIO fdatasync:EIO preadv:EIO fallocate:ENOSPC openat:EMFILE; do
        under "$call:$number:0"
        [ "$(hits)" -gt 0 ] && tally=$((tally + 1)) && say "    $call:$number: $said"
    done
done
for fault in pwritev2:ENOSPC:1:0 pwritev2:EIO:10:1 pwritev:EIO:5:1 fdatasync:EIO:2:1 preadv:EIO:20:3 fallocate:ENOSPC:1:1 fsync:EIO:2:0 \
    renameat:EIO:1:0 unlinkat:EIO:1:0 \
    ftruncate:EIO:1:0 mmap:ENOMEM:1:1 openat:EMFILE:24:1 openat:ENFILE:40:2 openat:ENOMEM:30:1 fdatasync:ENOMEM:6:9; do
    under "$fault"
    [ "$(hits)" -gt 0 ] && tally=$((tally + 1)) && say "    $fault: $(hits) times; $said"
done
equal "faults were met" yes "$([ $tally -gt 12 ] && echo yes || echo $tally)"

# What a killed mount acknowledged lies in staging: a mount that cannot read that now must not go on without it.
rm -rf "$S"
cp -a "$WORK/template" "$S"
start_mount "$S" "$M" commit=300
cp "$WORK/before" "$M/acknowledged"
kill_mount "$S" "$M"
expect_error "staging that cannot be mapped" 'what a killed mount left in .* cannot be read now' \
    faulty mmap:ENOMEM:1:0
start_mount "$S" "$M"
check "what was acknowledged is there" cmp "$WORK/before" "$M/acknowledged"
stop_mount "$S" "$M"
check_store "$S"

# The clock is set back by an hour: whoever waits for a moment of the time of day waits for an hour more, so nobody may.
check "the clock in front" gcc -O2 -shared -fPIC -o "$WORK/clock.so" "$HERE/faults/clock.c" -ldl || finish
batches() { figure "$M" batches; }
: >"$WORK/late"
MOUNTS+=("$M")
check "a mount before the clock is set back" env CLOCK_LATE="$WORK/late" LD_PRELOAD="$WORK/clock.so" \
    timeout 60 "$TREERING" mount "$S" "$M" -o "engine=$ENGINE,commit=1"
DAEMONS+=("$(daemon_of "$S")")
echo first >"$M/first"
sleep 2
rm "$WORK/late"
before=$(batches)
echo second >"$M/second"
for _ in $(seq 50); do [ "$(batches)" != "$before" ] && break; sleep 0.2; done
equal "commit= goes on when the clock is set back" yes "$([ "$(batches)" -gt "$before" ] && echo yes || echo "no: $(batches) batches")"
stop_mount "$S" "$M"
check_store "$S"
finish
