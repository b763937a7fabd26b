#!/bin/bash
# Kernels that refuse io_uring, small limits, and the options that change how a mount acknowledges and caches: each ends in a
# mount that works, survives a kill where it promises so, and checks clean.
# alone: what it changes is the whole machine's.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 strace
S=$WORK/store
M=$WORK/mnt

# works WHAT : some work in the mount, unmounted and looked at again by whoever reads it next.
works() {
    check "$1: work" python3 - "$M" <<'P'
import os, sys
root = sys.argv[1]
os.makedirs(f"{root}/d", exist_ok=True)
for number in range(200):
    path = f"{root}/d/f{number}"
    with open(path, "wb") as file:
        file.write(bytes([number]) * (number * 300))
        if number % 20 == 0: os.fsync(file.fileno())
    if number % 3 == 0: os.rename(path, path + "x")
descriptor = os.open(root, os.O_RDONLY)
os.fsync(descriptor)
for number in range(200):
    path = f"{root}/d/f{number}" + ("x" if number % 3 == 0 else "")
    assert open(path, "rb").read() == bytes([number]) * (number * 300), path
P
}
finished() {
    stop_mount "$S" "$M"
    check_store "$S"
    rm -rf "$S"
}
engine_is() { equal "$2: engine" "$1" "$("$TREERING" stats "$M" | awk '$1 == "engine" {print $2}')"; }

for options in ack=written ack=durable writeback_cache=on direct=off open=handle async_direct=off queue_depth=2 readers=1 staging=1M,index_cache=4M \
    commit=1 max_inflight=16; do
    start_mount "$S" "$M" "$options"
    works "$options"
    again "$S" "$M" "$options"
    works "$options again"
    finished
done

if [ "$ENGINE" = ring ]; then
    start_mount "$S" "$M" sqpoll
    works sqpoll
    finished
    # From here on the kernel refuses rings, and `auto` must go on by itself.
    ENGINE=auto
    for errno in ENOSYS EPERM; do
        # strace stays with the daemon and answers as a seccomp filter would.
        mkdir -p "$M"
        MOUNTS+=("$M")
        STORES+=("$S")
        strace -f -o /dev/null -e "inject=io_uring_setup:error=$errno" -e trace=io_uring_setup \
            "$TREERING" mount "$S" "$M" -f -o engine=auto >"$WORK/log" 2>&1 &
        tracer=$!
        for _ in $(seq 100); do is_mounted "$M" && break; sleep 0.1; done
        DAEMONS+=("$(daemon_of "$S")")
        engine_is posix "io_uring_setup refused with $errno"
        works "io_uring_setup refused with $errno"
        check "$errno is told" grep -q "engine posix.*$errno" "$WORK/log"
        finished
        wait $tracer 2>/dev/null
    done
    setting=/proc/sys/kernel/io_uring_disabled
    if [ -w "$setting" ]; then
        # The whole machine's, so only while the mount begins, and taken back whatever happens.
        before=$(cat $setting)
        trap 'echo "$before" >$setting; interrupted' INT TERM HUP
        trap 'echo "$before" >$setting; fail "ended early"; finish' EXIT
        mkdir -p "$M"
        MOUNTS+=("$M")
        STORES+=("$S")
        echo 2 >$setting
        check "kernel.io_uring_disabled=2: mount" "$TREERING" mount "$S" "$M" -o engine=auto
        echo "$before" >$setting
        trap interrupted INT TERM HUP
        trap 'fail "ended early"; finish' EXIT
        DAEMONS+=("$(daemon_of "$S")")
        works "kernel.io_uring_disabled=2"
        engine_is posix "kernel.io_uring_disabled=2"
        finished
    fi
    expect_error "a ring that cannot be had" "engine=ring cannot be had" \
        strace -f -o /dev/null -e inject=io_uring_setup:error=EPERM -e trace=io_uring_setup \
        "$TREERING" mount "$S" "$M" -f -o engine=ring
fi
finish
