#!/bin/bash
# A successor takes the kernel's connection over from a serving process that was killed (--supervise): programs in the midst of their work,
# with open files, locks and transactions, see no error, and nothing is done twice. TREERING_KILLS kills (3); more than 10 in a minute
# are given up by the supervisor.
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 fio
S=$WORK/store
M=$WORK/mnt
kills=${TREERING_KILLS:-3}
takes_over() { python3 - <<'P'
import os
release = os.uname().release.split(".")
raise SystemExit(0 if (int(release[0]), int(release[1])) >= (6, 9) else 1)
P
}
takes_over || { say "takeover: needs Linux 6.9"; finish; }
inodes() { figure "$M" inodes; }

# supervised [OPTIONS] : the supervisor in the foreground, its words in a file.
supervised() {
    "$TREERING" mount "$S" "$M" -f --supervise -o "engine=$ENGINE${1:+,$1}" 2>>"$WORK/log" &
    supervisor=$!
    DAEMONS+=("$supervisor")
    MOUNTS+=("$M")
    for _ in $(seq 200); do is_mounted "$M" && stat -f "$M" >/dev/null 2>&1 && break; sleep 0.1; done
}
mkdir "$M"
for options in '' ack=durable writeback_cache=on,commit=1; do
    supervised "$options"
    mkdir "$M/work"
    before=$(inodes)
    fio --name=jobs --directory="$M" --rw=randwrite --bs=4k --size=8m --numjobs=4 --verify=crc32c --time_based --runtime=4 \
        --ioengine=psync --output="$WORK/fio" --group_reporting &
    jobs=$!
    if python3 "$HERE/takeover.py" "$M/work" "$S" "$kills" >"$WORK/out" 2>&1; then pass; else fail "clients (${options:-no options})"; fi
    sed 's/^/    /' "$WORK/out"
    wait $jobs
    equal "fio verifies what it wrote: exit" 0 $?
    grep -q 'err= 0' "$WORK/fio" || fail "fio: $(grep -m 1 'err=' "$WORK/fio")"
    # A kill may hit a successor that is not there yet.
    equal "kills that the supervisor saw" "$kills" "$(grep -c 'was killed by signal 9' "$WORK/log")"
    check "the last one took the connection over" bash -c 'tail -n 2 "$0" | grep -q "took the connection over"' "$WORK/log"
    grep -E 'cannot be|took the place' "$WORK/log"
    refuse "the mount is the first one all along" grep -qE 'cannot be taken over|took the place' "$WORK/log"
    equal "the same supervisor" "$supervisor" "$(parent_of "$(daemon_of "$S")")"
    rm -rf "$M/work" "$M"/jobs.*
    for _ in $(seq 100); do [ "$(inodes)" -lt "$before" ] && break; sleep 0.1; done
    # What the killed processes were told to forget and had not yet forgotten is kept until the unmount: not more than a few.
    [ "$(inodes)" -le $((before + 20)) ] && pass || fail "$(inodes) inodes are left of $before"
    stop_mount "$S" "$M"
    wait_gone "$supervisor" 10 || fail "the supervisor is still there after an unmount"
    check_store "$S"
    : >"$WORK/log"
    "$TREERING" check "$S" | grep -q "^$S: clean: [12] inodes" || fail "something is left: $("$TREERING" check "$S" | tail -n 1)"
done

# Unmounted while nobody serves, and killed with nobody there to notice: no successor.
supervised
echo word >"$M/file"
kill -STOP "$supervisor"
pid=$(daemon_of "$S")
kill -9 "$pid"
fusermount3 -u -z "$M" || umount -l "$M"
kill -CONT "$supervisor"
wait_gone "$supervisor" 20 || fail "the supervisor goes on after an unmount"
if is_mounted "$M"; then fail "is mounted again after an unmount"; else pass; fi
start_mount "$S" "$M"
equal "what was written" word "$(cat "$M/file")"
stop_mount "$S" "$M"
finish
