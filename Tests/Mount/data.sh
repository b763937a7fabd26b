#!/bin/bash
# Data beyond read and write: fallocate, holes, instant copies, O_DIRECT, O_DSYNC, O_APPEND, mmap. The same program runs on a plain
# directory of the native file system first: whatever it asserts must hold there too.
# shellcheck source=lib.sh disable=SC2016
. "$(dirname "$0")/lib.sh"
need python3 fallocate
S=$WORK/store
M=$WORK/mnt
start_mount "$S" "$M"
mkdir "$WORK/plain"

check "the program holds on the native file system" python3 "$HERE/data/ranges.py" "$WORK/plain" plain
check "ranges, copies, mappings" python3 "$HERE/data/ranges.py" "$M" treering

# set-user-ID goes when somebody else allocates or copies.
cp /bin/true "$M/suid"
chmod 6755 "$M/suid"
chown 65534:65534 "$M" "$M/suid"
chmod 6755 "$M/suid"
python3 -c '
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
os.posix_fallocate(f, 0, 10)' "$M/suid"
equal "root keeps set-user-ID" 6755 "$(stat -c %a "$M/suid")"

# An instant copy.
M1=$M/big
check "256 MiB" dd if=/dev/urandom of="$M1" bs=1M count=256 status=none
used=$(df --output=used -B4096 "$M" | tail -1)
sync "$M1"
start=$(date +%s%N)
cp "$M1" "$M1.copy"
took=$((($(date +%s%N) - start) / 1000000))
say "    cp of 256 MiB: $took ms"
# 1 GiB takes 10 to 30 ms in a release build on a quiet machine.
equal "a copy takes no time" yes "$([ $took -lt 100 ] && echo yes)"
grown=$(($(df --output=used -B4096 "$M" | tail -1) - used))
equal "a copy takes no space" yes "$([ $grown -lt 20000 ] && echo yes || echo "$grown blocks")"
check "the copy is the same" cmp "$M1" "$M1.copy"
printf x | dd of="$M1" bs=1 seek=100000000 conv=notrunc status=none
refuse "the original has changed" cmp "$M1" "$M1.copy"
sum=$(md5sum <"$M1.copy")
rm "$M1"
equal "the copy outlives the original" "$sum" "$(md5sum <"$M1.copy")"

# What was promised is written on a full store.
check "reserve 100 MiB" fallocate -l 100M "$M/promised"
free=$(df --output=avail -B1 "$M" | tail -1)
expect_error "more than there is" "No space" fallocate -l $((free + (64 << 20))) "$M/much"
again "$S" "$M"
equal "copy after a remount" "$sum" "$(md5sum <"$M/big.copy")"
equal "reserved after a remount" 204800 "$(stat -c %b "$M/promised")"
batches() { figure "$M" batches; }
before=$(batches)
dd if=/dev/zero of="$M/dsync" bs=4k count=5 oflag=dsync status=none
equal "each O_DSYNC write reaches the log" yes "$([ $(($(batches) - before)) -ge 5 ] && echo yes)"
stop_mount "$S" "$M"
check_store "$S"

# The kernel reads what it lacks of a page that its writeback cache changes: nobody has read the file.
W=$WORK/cached
start_mount "$W" "$M" writeback_cache=on
head -c 20000 /dev/urandom >"$M/f"
touch -a -d @978307200 "$M/f"
again "$W" "$M" writeback_cache=on
# (dd would open it for reading too.)
python3 -c 'import os, sys; f = os.open(sys.argv[1], os.O_WRONLY); os.pwrite(f, b"x", 5000); os.fsync(f)' "$M/f"
# Until it asks again the kernel shows the time that it had.
again "$W" "$M" writeback_cache=on
equal "a write leaves the time of access" 978307200 "$(stat -c %X "$M/f")"
cat "$M/f" >/dev/null
equal "a read moves it" yes "$([ "$(stat -c %X "$M/f")" -gt 978307200 ] && echo yes)"
stop_mount "$W" "$M"
check_store "$W"

# More programs look for holes, in files with mappings that are not written back, than requests are taken at a time.
W=$WORK/seeks
start_mount "$W" "$M" max_inflight=16
equal "looking for data in many mapped files at once" "40 {4096}" "$(timeout 60 python3 "$HERE/data/seeks.py" "$M")"
stop_mount "$W" "$M"
check_store "$W"

# A small store, filled around a promise.
T=$WORK/small
check "format" "$TREERING" format "$T" --capacity 128M
start_mount "$T" "$M"
check "reserve 40 MiB" fallocate -l 40M "$M/promised"
expect_error "fill the rest" "No space" dd if=/dev/urandom of="$M/filler" bs=128k
check "what was promised is written" dd if=/dev/urandom of="$M/promised" bs=128k count=320 conv=notrunc,fsync status=none
check "room comes back" rm "$M/filler" "$M/promised"
stop_mount "$T" "$M"
check_store "$T"
# New mail: the first read after a change moves the time of the last access, though its pages lie in the kernel's cache.
W=$WORK/mail
start_mount "$W" "$M" open=handle
is_new() { python3 -c 'import os, sys; s = os.stat(sys.argv[1]); print("new" if s.st_atime_ns <= s.st_mtime_ns else "read")' "$M/box"; }
for message in first second; do
    echo "$message" >>"$M/box"
    equal "a mailbox with a $message message" new "$(is_new)"
    python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDONLY))' "$M/box"
    equal "a mailbox that was opened and not read" new "$(is_new)"
    equal "the $message message" "$message" "$(tail -n 1 "$M/box")"
    equal "a mailbox that was read" read "$(is_new)"
done
stop_mount "$W" "$M"

# A buffered reader beside asynchronous direct writes of the same bytes.
check "the direct writer" gcc -O2 -pthread -o "$WORK/direct" "$HERE/data/direct.c"
start_mount "$W" "$M" async_direct=off
check "what is read after the completion of a direct write" "$WORK/direct" "$M/direct" 1500
stop_mount "$W" "$M"
check_store "$W"
finish
