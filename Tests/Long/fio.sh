#!/bin/bash
# 1 GiB of random writes whose every block is verified: by the mount that took them, and after a remount with the other engine.
# unit: MiB verified
# goal: 2048
# engines: ring posix
# seeds: 1
# seconds: 3600
# shellcheck source=../Mount/lib.sh
. "$(dirname "$0")/../Mount/lib.sh"
need fio
S=$WORK/store
M=$WORK/mnt
# verified WHAT OPTIONS... : two jobs of 512 MiB
verified() {
    local what=$1
    shift
    if fio --aux-path="$WORK" --name=verify --directory="$M" --numjobs=2 --group_reporting --size=512m --rw=randwrite \
        --bs=4k-128k --randseed="$SEED" \
        --randrepeat=1 --verify=crc32c --verify_fatal=1 --fallocate=none --ioengine=psync --end_fsync=1 --output="$WORK/fio" "$@" >/dev/null 2>&1 &&
        grep -q 'err= 0' "$WORK/fio"; then
        pass
        say "count 1024 MiB verified"
    else
        fail "$what"
        tail -n 30 "$WORK/fio"
    fi
}
start_mount "$S" "$M" capacity=8G
verified "writing and verifying" --do_verify=1
say "note $("$TREERING" stats "$M" | awk '$1 == "engine" {print "written with engine " $2}')"
stop_mount "$S" "$M"
check_store "$S"
ENGINE=$([ "$ENGINE" = ring ] && echo posix || echo ring)
start_mount "$S" "$M"
verified "verifying with engine $ENGINE" --verify_only
stop_mount "$S" "$M"
check "check --data" timeout 600 "$TREERING" check "$S" --data
finish
