#!/bin/bash
# The ends of a session with thousands of cold reads on their way: the mount is taken off the tree, the connection is aborted, SIGTERM
# comes twice. Each time the serving process exits with 0 and leaves a clean store. TREERING_ENDS of each (1; with LONG=1 10). And
# `max_inflight` is kept.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 gcc
S=$WORK/store
M=$WORK/mnt
ends=${TREERING_ENDS:-1}
[ "$LONG" = 1 ] && ends=10
mkdir "$M"
check "the reader" gcc -O2 -pthread -o "$WORK/reader" "$HERE/ends/reader.c" || finish
# A slow disk for the posix engine: most requests are then at the same step, waiting for a page of the index or for their data.
check "the slow disk" gcc -O2 -shared -fPIC -o "$WORK/slow.so" "$HERE/ends/slow.c" || finish
# Written in disorder: the reads of a page of the index, and of a batch of the log, lie far apart.
"$TREERING" format "$S" --capacity 1G >/dev/null
start_mount "$S" "$M"
python3 "$HERE/ends/fill.py" "$M/file"
stop_mount "$S" "$M"

# serve OPTIONS PRELOAD ARGUMENTS... : mounts in the foreground, nothing of it in memory; `server` is its process.
serve() {
    local options=$1 preload=$2
    shift 2
    LD_PRELOAD=$preload "$TREERING" mount "$S" "$M" -f "$@" -o "engine=$ENGINE,direct=on,index_cache=4M,$options" >"$WORK/log" 2>&1 &
    server=$!
    DAEMONS+=("$server")
    for _ in $(seq 200); do is_mounted "$M" && break; sleep 0.05; done
}
MOUNTS+=("$M")
STORES+=("$S")

# read_much FLIGHT THREADS : begins to read so many blocks at a time; returns when some have come.
read_much() {
    rm -f "$WORK/ready"
    "$WORK/reader" "$M/file" "$1" "$2" >"$WORK/ready" &
    reader=$!
    for _ in $(seq 500); do [ -s "$WORK/ready" ] && break; sleep 0.01; done
}

# exits WHAT : the server does, with 0, and the store is clean.
exits() {
    local code
    wait_gone "$server" "$LEAVE_SECONDS" || { fail "$1: the serving process is still there"; kill -9 "$server"; }
    wait "$server"
    code=$?
    equal "$1: exit code" 0 "$code"
    [ "$code" = 0 ] || sed 's/^/    /' "$WORK/log" | tail -n 5
    wait "$reader" 2>/dev/null
    case $? in 0 | 141) ;; *) fail "$1: what was read is not what was written" ;; esac
    is_mounted "$M" && fusermount3 -u -z "$M"
    check_store "$S"
}

detach() {
    fusermount3 -u -z "$M"
    # Not a signal that the shell tells of.
    kill -PIPE "$reader"
}
terminate() {
    kill "$server"
    sleep 0.2
    kill "$server"
}
abort() { echo 1 >"$WORK/connections/${device#*:}/abort"; }

kinds='detach terminate'
mkdir "$WORK/connections"
if mount -t fusectl none "$WORK/connections" 2>/dev/null; then kinds+=' abort'; else say "ends: no abort without root"; fi
ended=0
# ends_while FLIGHT THREADS PRELOAD
ends_while() {
    for kind in $kinds; do
        serve max_inflight=8192 "$3"
        device=$(awk -v dir="$M" '$5 == dir {print $3}' /proc/self/mountinfo | tail -n 1)
        read_much "$1" "$2"
        $kind
        exits "$kind while $(($1 + $2)) reads are on their way${3:+ on a slow disk}"
        ended=$((ended + 1))
    done
}
for _ in $(seq "$ends"); do
    ends_while 2000 64 ''
    ends_while 0 50 "$WORK/slow.so"
done
say "count $ended ends of sessions"
mountpoint -q "$WORK/connections" && umount "$WORK/connections"

# libfuse tells of each request when it is read, and of each answer just before it is given.
serve max_inflight=16 "$WORK/slow.so" -d
read_much 0 100
detach
exits "a mount with max_inflight=16"
most=$(awk '/opcode: / && !/FORGET|INTERRUPT/ {if (++n > most) most = n} /unique: .*(success|error)/ {n--} END {print most + 0}' "$WORK/log")
say "    $most requests at a time"
[ "$most" -le 16 ] && [ "$most" -ge 10 ] && pass || fail "max_inflight=16: $most requests at a time"
finish
