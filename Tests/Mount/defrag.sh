#!/bin/bash
# Files of many pieces: lines that were synced one by one and blocks that were overwritten here and there are joined on request, and in the
# background; the mount is killed meanwhile; contents and sharing stay.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
S=$WORK/store
M=$WORK/mnt

# pieces FILE : writes 400 lines, each synced, and 300 blocks of a file of 2 MiB.
pieces() {
    python3 - "$1" <<'PY'
import os, random, sys
log = os.open(sys.argv[1] + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in range(400):
    os.write(log, b"%06d " % number + b"x" * 72 + b"\n")
    os.fsync(log)
base = os.open(sys.argv[1] + "/base", os.O_RDWR | os.O_CREAT)
os.write(base, random.Random(1).randbytes(2 << 20))
for number in range(300): os.pwrite(base, bytes([number % 256]) * 4096, number * 197 % 512 * 4096)
os.fsync(base)
PY
}

# joined : pieces that were joined since the mount.
joined() { figure "$M" joined_pieces; }

start_mount "$S" "$M" "defrag=off,capacity=256M"
mkdir "$M/dir"
check "pieces" pieces "$M/dir"
cp "$M/dir/base" "$M/copy"
sums=$(cd "$M" && md5sum dir/log dir/base copy)
sleep 2
equal "nothing is joined by itself" 0 "$(joined)"
output=$(timeout 60 "$TREERING" defrag "$M/dir") || fail "defrag: exit $?"
say "    $output"
[[ $output =~ :\ 2\ files:\ ([0-9]+)\ pieces ]] && [ "${BASH_REMATCH[1]}" -ge 400 ] || fail "defrag says: $output"
equal "the figure" "${BASH_REMATCH[1]}" "$(joined)"
equal "contents" "$sums" "$(cd "$M" && md5sum dir/log dir/base copy)"
output=$(timeout 60 "$TREERING" defrag "$M/dir")
[[ $output =~ :\ 2\ files:\ 0\ pieces ]] || fail "the second time: $output"
equal "the copy is shared still" $((2 << 20)) "$(figure "$M" shared_bytes)"
expect_error "outside a mount" "is not in a Treering mount" "$TREERING" defrag "$WORK"
expect_error "no path" "PATH is missing" "$TREERING" defrag
expect_error "no such path" "No such file" "$TREERING" defrag "$M/none"
if [ "$(id -u)" = 0 ]; then
    chmod 644 "$M/dir/log"
    chmod 755 "$M/dir" "$M"
    stop_mount "$S" "$M"
    start_mount "$S" "$M" "defrag=off,allow_other"
    expect_error "another's file" "Operation not permitted|Permission denied" setpriv --reuid=1000 --regid=1000 --clear-groups \
        "$TREERING" defrag "$M/dir/log"
fi
again "$S" "$M"
equal "contents of what was joined" "$sums" "$(cd "$M" && md5sum dir/log dir/base copy)"

# In the background: when nobody writes.
rm -rf "$M/dir" "$M/copy"
mkdir "$M/dir"
check "pieces" pieces "$M/dir"
sums=$(cd "$M" && md5sum dir/log dir/base)
for _ in $(seq 200); do [ "$(joined)" -ge 400 ] && break; sleep 0.1; done
check "joined by itself" test "$(joined)" -ge 400
equal "contents" "$sums" "$(cd "$M" && md5sum dir/log dir/base)"
stop_mount "$S" "$M"
check_store "$S"

# Killed meanwhile.
start_mount "$S" "$M" defrag=eager
for round in 1 2 3; do
    rm -rf "$M/dir"
    mkdir "$M/dir"
    check "pieces" pieces "$M/dir"
    sums=$(cd "$M" && md5sum dir/log dir/base)
    (timeout 20 "$TREERING" defrag "$M/dir" >/dev/null 2>&1 &)
    sleep "0.0$round"
    kill_mount "$S" "$M"
    start_mount "$S" "$M" defrag=eager
    equal "contents after a kill" "$sums" "$(cd "$M" && md5sum dir/log dir/base)"
done
stop_mount "$S" "$M"
check_store "$S"
timeout 100 "$TREERING" check "$S" --data --rebuild-index >"$WORK/rebuilt" || [ $? = 1 ] || fail "an index made anew: $(cat "$WORK/rebuilt")"
check_store "$S"
start_mount "$S" "$M" ro
equal "contents with that" "$sums" "$(cd "$M" && md5sum dir/log dir/base)"
stop_mount "$S" "$M"
finish
