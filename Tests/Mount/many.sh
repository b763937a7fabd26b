#!/bin/bash
# Many files: in one directory and over a tree (25,000 each; TREERING_FILES: a million each in the long tier). Made, listed, looked at, mounted again,
# index deleted and made anew, removed. Memory stays within the stated bound; times are printed, never judged.
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
S=$WORK/store
M=$WORK/mnt
count=${TREERING_FILES:-25000}
# At an unmount the kernel forgets every file by itself: some seconds for each 200,000.
LEAVE_SECONDS=$((30 + count / 10000))
CHECK_SECONDS=$((120 + count / 1000))
# index_cache plus staging plus 400 bytes an inode plus 100 MiB for the program: what README promises, with room.
cache=32
limit_kib=$(((cache * 2 + 16 + 100) * 1024 + count * 2 * 400 / 1024))


memory() {
    local kib
    kib=$(awk '/^VmHWM/ {print $2}' "/proc/$(daemon_of "$S")/status")
    say "    memory at most: $kib KiB of $limit_kib"
    say "note memory at most $kib KiB ($1)"
    [ "$kib" -le "$limit_kib" ]
}
shown() { local what=$1; shift; "$@" >"$WORK/out" 2>&1 && cat "$WORK/out" && pass || { fail "$what"; cat "$WORK/out"; }; }

start_mount "$S" "$M" "index_cache=${cache}M"
say "count $((count * 2)) files"
shown "making $count files twice" python3 "$HERE/many.py" make "$M" "$count"
shown "memory while making" memory "while making"
shown "looking at them" python3 "$HERE/many.py" look "$M" "$count"
stop_mount "$S" "$M"
check_store "$S"
begun=$(date +%s%N)
start_mount "$S" "$M" "index_cache=${cache}M"
took=$((($(date +%s%N) - begun) / 1000000))
say "    mounted again in $took ms"
say "note mounted again in $took ms"
shown "looking at them after a mount" python3 "$HERE/many.py" look "$M" "$count"
shown "memory after a mount" memory "after a mount"
stop_mount "$S" "$M"
rm "$S/index"
"$TREERING" check "$S" --rebuild-index >"$WORK/out" 2>&1
equal "making the index anew (fsck: 1, corrected)" 1 $?
start_mount "$S" "$M" "index_cache=${cache}M"
shown "looking at them with the new index" python3 "$HERE/many.py" look "$M" "$count"
shown "removing them" python3 "$HERE/many.py" remove "$M" "$count"
shown "memory while removing" memory "while removing"
stop_mount "$S" "$M"
check_store "$S"
equal "inodes left" 1 "$("$TREERING" check "$S" | grep -o '[0-9]* inodes' | cut -d' ' -f1)"
finish
