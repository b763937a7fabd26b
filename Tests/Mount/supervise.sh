#!/bin/bash
# No stale mount: a dead one gives way to the next mount, and with --supervise the serving process is started again when it dies.
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
S=$WORK/store
M=$WORK/mnt

# children PID : the pids of its children.
children() { cat "/proc/$1/task"/*/children 2>/dev/null; }
# usable FILE CONTENT SECONDS : waits for a file of the mount; prints the milliseconds that it took.
usable() {
    local begun=${EPOCHREALTIME/[.,]/} now
    while :; do
        now=${EPOCHREALTIME/[.,]/}
        if [ "$(cat "$M/$1" 2>/dev/null)" = "$2" ]; then
            echo $(((now - begun) / 1000))
            return 0
        fi
        [ $((now - begun)) -gt $(($3 * 1000000)) ] && return 1
        sleep 0.01
    done
}
dead() { ! stat -f "$M" >/dev/null 2>&1 && is_mounted "$M"; }
# killed : kills the serving process, and waits until it is gone.
killed() {
    local pid
    pid=$(daemon_of "$S")
    if is_daemon "$pid"; then kill -9 "$pid"; else fail "process $pid, which holds the store, does not serve"; fi
    wait_gone "$pid" 10
}

# A dead mount, without a supervisor.
start_mount "$S" "$M"
echo one >"$M/file"
killed
check "the mount is dead" dead
expect_error "a store that cannot be mounted leaves the dead mount alone" 'no such directory|parent directory' "$TREERING" mount "$WORK/no/store" "$M"
check "it is still dead" dead
start_mount "$S" "$M"
equal "mounted over the dead mount" one "$(cat "$M/file")"
equal "one mount is there" 1 "$(grep -c " $M fuse.treering " /proc/mounts)"
expect_error "a living mount stays" 'mounted there already' "$TREERING" mount "$S" "$M"
killed
ln -s "$M" "$WORK/link"
mkdir "$WORK/below"
check "over a dead mount through a link and dots" bash -c 'cd "$1" && "$2" mount store ./below/../link -o "engine=$3"' - "$WORK" "$TREERING" "$ENGINE"
DAEMONS+=("$(daemon_of "$S")")
equal "mounted there" one "$(cat "$M/file")"
stop_mount "$S" "$M"
if is_mounted "$M"; then fail "a dead mount was below"; else pass; fi

# Killed while the kernel, asked for holes, waits for the process to take what a mapping had stored: nobody waits for ever.
# seek_and_kill [COMMAND [PID]] : COMMAND is run before, PID killed too; the helper's pid in $helper, what lseek said in $found.
seek_and_kill() {
    { read -r helper; read -r found; } < <(timeout 100 python3 "$HERE/supervise/seek.py" "$M/mapped" "$(daemon_of "$S")" "$@" 2>&1)
    wait_gone "$helper" 5 || fail "the helper $helper stays"
}
start_mount "$S" "$M"
seek_and_kill
check "who waited gets an error, not '$found'" grep -Eq 'abort|not connected' <<<"$found"
check "the mount is dead" dead
start_mount "$S" "$M" '' --supervise
seek_and_kill
equal "what is found with a successor" 4096 "$found"
rm "$M/mapped"
# A kernel that does not send requests again (before Linux 6.9): the successor mounts anew.
stop_mount "$S" "$M"
check "a shim for an older kernel" cc -shared -fPIC -o "$WORK/older.so" "$HERE/supervise/older.c" -ldl
LD_PRELOAD=$WORK/older.so start_mount "$S" "$M" '' --supervise
echo two >"$M/older"
seek_and_kill
check "with a successor that mounts anew who waited gets an error, not '$found'" grep -Eq 'abort|not connected' <<<"$found"
usable older two 20 >/dev/null || fail "is not mounted anew"
# Asked to end while nobody serves.
supervisor=$(parent_of "$(daemon_of "$S")")
seek_and_kill "kill -STOP $supervisor && sh -c 'sleep 2; kill -TERM $supervisor; kill -CONT $supervisor' &"
check "at an unmount who waited gets an error, not '$found'" grep -Eq 'abort|not connected' <<<"$found"
for _ in $(seq 100); do is_mounted "$M" || break; sleep 0.1; done
if is_mounted "$M"; then fail "is still mounted"; else pass; fi
start_mount "$S" "$M" '' --supervise
rm -f "$M/mapped"
# The supervisor as well: then there is no successor.
seek_and_kill true "$(parent_of "$(daemon_of "$S")")"
check "without a supervisor who waited gets an error, not '$found'" grep -Eq 'abort|not connected' <<<"$found"
check "and the mount is dead" dead
start_mount "$S" "$M"
rm "$M/mapped"
if [ "$(id -u)" = 0 ]; then
    # Off the tree, and another store's mount in its place: that one is not ended.
    T=$WORK/other
    seek_and_kill "umount -l '$M' && '$TREERING' mount '$T' '$M' -o 'engine=$ENGINE' && echo hers >'$M/hers'"
    check "off the tree who waited gets an error, not '$found'" grep -Eq 'abort|not connected' <<<"$found"
    equal "another mount in its place goes on" hers "$(timeout 20 cat "$M/hers")"
    stop_mount "$T" "$M"
    start_mount "$S" "$M"
    rm "$M/mapped"
fi
stop_mount "$S" "$M"

# A supervisor.
start_mount "$S" "$M" '' --supervise
supervisor=$(parent_of "$(daemon_of "$S")")
DAEMONS+=("$supervisor")
check "the serving process has a supervisor" grep -q "treering: supervisor of $S on $M" <(tr '\0' ' ' <"/proc/$supervisor/cmdline")
equal "and is shown as the mount" "$TREERING mount $S $M" "$(tr '\0' ' ' <"/proc/$(daemon_of "$S")/cmdline" | cut -d' ' -f1-4)"
slowest=0
for round in 1 2 3; do
    echo "$round" >"$M/round$round"
    killed
    took=$(usable "round$round" "$round" 20) || fail "round $round: is not mounted again"
    [ "${took:-0}" -gt "$slowest" ] && slowest=$took
done
say "    mounted again within $slowest ms"
# A second on a quiet machine; tests run on busy ones.
[ "$slowest" -le 5000 ] && pass || fail "mounted again only after $slowest ms"
equal "the same supervisor" "$supervisor" "$(parent_of "$(daemon_of "$S")")"
equal "one mount is there" 1 "$(grep -c " $M fuse.treering " /proc/mounts)"

# Between two serving processes the directory below is not to be had: nothing is written past the mount (root; others have a moment).
python3 "$HERE/supervise/writer.py" "$M" "$WORK/writer.log" &
writer=$!
for _ in 1 2; do
    sleep 0.6
    pid=$(daemon_of "$S")
    is_daemon "$pid" && kill -9 "$pid"
done
wait $writer
usable round1 1 20 >/dev/null || fail "is not mounted again under load"
[ "$(id -u)" = 0 ] && check "every file that was written is in the store" python3 - "$M" "$WORK/writer.log" <<'P'
import sys
numbers = [int(line) for line in open(sys.argv[2])]
assert len(numbers) > 20, len(numbers)
for number in numbers: assert open(f"{sys.argv[1]}/w{number}", "rb").read() == b"%d" % number, number
P
# An unmount ends both processes.
stop_mount "$S" "$M"
wait_gone "$supervisor" 10 || fail "the supervisor is still there after an unmount"
[ "$(id -u)" = 0 ] && equal "nothing was written below the mount" '' "$(find "$M" -mindepth 1 | head -n 5)"
check_store "$S"

# SIGTERM to the supervisor unmounts.
start_mount "$S" "$M" supervise
supervisor=$(parent_of "$(daemon_of "$S")")
DAEMONS+=("$supervisor")
kill -TERM "$supervisor"
wait_gone "$supervisor" 20 || fail "the supervisor is still there after SIGTERM"
if is_mounted "$M"; then fail "is still mounted after SIGTERM to the supervisor"; else pass; fi
check "the store came to rest" bash -c '"$0" check "$1" | grep -q clean' "$TREERING" "$S"

# In the foreground, by the environment; SIGTERM while the next process is being started.
TREERING_SUPERVISE=on "$TREERING" mount "$S" "$M" -f -o "engine=$ENGINE" 2>"$WORK/log" &
supervisor=$!
usable round1 1 20 >/dev/null || fail "is not mounted in the foreground"
DAEMONS+=("$(daemon_of "$S")")
killed
kill -TERM $supervisor
wait $supervisor
wait_gone "$(daemon_of "$S")" 10 || fail "a serving process is left after SIGTERM"
if is_mounted "$M"; then fail "is still mounted after SIGTERM in the foreground"; else pass; fi
check "the death is told" grep -q 'was killed by signal 9' "$WORK/log"

# What cannot be mounted is told at once, and not tried again.
expect_error "a wrong store" 'neither empty nor a Treering store' "$TREERING" mount "$WORK" "$M" --supervise
cp -a "$S" "$WORK/damaged"
head -c "$(stat -c %s "$S/superblock")" /dev/urandom >"$WORK/damaged/superblock"
expect_error "a damaged store" 'superblock' timeout 20 "$TREERING" mount "$WORK/damaged" "$M" --supervise

# Killed while it formats: the next mount begins again.
for round in 1 2 3 4 5 6; do
    "$TREERING" mount "$WORK/new" "$M" -f -o "engine=$ENGINE" 2>/dev/null &
    pid=$!
    for _ in $(seq 1000); do [ -e "$WORK/new/superblock" ] && break; done
    sleep "0.00$round"
    kill -9 $pid
    wait $pid 2>/dev/null
done
start_mount "$WORK/new" "$M"
stop_mount "$WORK/new" "$M"
check_store "$WORK/new"
equal "no mark is left" '' "$(find "$WORK/new" -name '*formatting*')"

# Killed while it makes its staging: what was made goes with the next mount, and does not stay in memory until the next boot.
start_mount "$WORK/new" "$M"
staging=$(staging_of "$WORK/new")
name=$(basename "$(find /dev/shm -name "$staging-*" | head -n 1)")
stop_mount "$WORK/new" "$M"
(umask 077 && head -c 16785408 /dev/zero >"/dev/shm/${name%-*}-1" && : >"/dev/shm/${name%-*}-2")
mkfifo "/dev/shm/${name%-*}-fifo"
start_mount "$WORK/new" "$M"
rm "/dev/shm/${name%-*}-fifo"
equal "staging of mounts that died before they began" "1" "$(find /dev/shm -name "$staging-*" | wc -l)"
stop_mount "$WORK/new" "$M"
equal "staging after an unmount" "0" "$(find /dev/shm -name "$staging-*" | wc -l)"

# One that dies over and over is given up, with a word; the next mount is as if nothing had been.
"$TREERING" mount "$S" "$M" -f --supervise -o "engine=$ENGINE" 2>"$WORK/log" &
supervisor=$!
# The first must have been usable: one that dies before is an error of the mount, and tried once.
check "the first serves" usable file one 20
for _ in $(seq 600); do
    kill -0 $supervisor 2>/dev/null || break
    pid=$(children $supervisor)
    # shellcheck disable=SC2086
    [ -n "$pid" ] && is_mounted "$M" && kill -9 $pid 2>/dev/null
    sleep 0.03
done
wait_gone $supervisor 1 || fail "a process that dies over and over is not given up"
wait $supervisor
equal "exit code of one given up" 1 $?
check "and says so" grep -q 'not started again' "$WORK/log"
start_mount "$S" "$M"
equal "the next mount" one "$(cat "$M/file")"
stop_mount "$S" "$M"
check_store "$S"
finish
