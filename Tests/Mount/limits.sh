#!/bin/bash
# What a process may have is little: fewer descriptors than the store has segments, a limit that is met for a while. Nothing is lost, nothing
# ends, and what cannot be is said at the mount. LONG=1: 20,000 segments.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 prlimit
S=$WORK/store
M=$WORK/mnt

descriptors() { find "/proc/$(daemon_of "$S")/fd" -mindepth 1 | wc -l; }
drop_caches() { [ -w /proc/sys/vm/drop_caches ] && echo 1 >/proc/sys/vm/drop_caches; }

# More segments than the process may have files open.
count=150
check "format" "$TREERING" format "$S" --capacity 600M --segment-size 1M
mkdir "$M"
expect_error "too few descriptors" 'no more than 50 files may be open.*needs [0-9]+' \
    prlimit --nofile=50 timeout 60 "$TREERING" mount "$S" "$M" -o "engine=$ENGINE"
program=$TREERING
printf '#!/bin/sh\nulimit -n 64\nexec %s "$@"\n' "$program" >"$WORK/limited"
chmod +x "$WORK/limited"
TREERING=$WORK/limited
start_mount "$S" "$M"
check "writing over many segments" timeout 100 python3 "$HERE/limits.py" write "$M" 1 $count
check "sync" "$TREERING" sync "$M"
equal "more segments than descriptors" yes "$([ "$(find "$S/segments" | wc -l)" -gt 100 ] && echo yes)"
equal "descriptors in use are few" yes "$([ "$(descriptors)" -le 64 ] && echo yes || descriptors)"
drop_caches
check "what was written is there" timeout 100 python3 "$HERE/limits.py" verify "$M" 1 $count
kill_mount "$S" "$M"
start_mount "$S" "$M"
check "what was written is there after a kill" timeout 100 python3 "$HERE/limits.py" verify "$M" 1 $count
stop_mount "$S" "$M"
check_store "$S"

# The limit is met for a while: like a full disk, and then like nothing.
TREERING=$program
rm -rf "$S"
check "format" "$TREERING" format "$S" --capacity 600M --segment-size 1M
start_mount "$S" "$M"
check "writing" timeout 100 python3 "$HERE/limits.py" write "$M" 2 20
pid=$(daemon_of "$S")
before=$(prlimit --pid "$pid" --nofile --output SOFT --noheadings | tr -dc 0-9)
prlimit --pid "$pid" --nofile=8:
expect_error "writing without descriptors" 'No space left' timeout 100 python3 "$HERE/limits.py" write "$M" 3 60
check "what was written is durable" timeout 60 "$TREERING" sync "$M"
check "removing" rm "$M/2-0"
prlimit --pid "$pid" --nofile="$before:"
sleep 2
check "writing when there are descriptors again" timeout 100 python3 "$HERE/limits.py" write "$M" 4 30
check "what was written after that is there" timeout 100 python3 "$HERE/limits.py" verify "$M" 4 30
stop_mount "$S" "$M"
check_store "$S"

# What else a process inherits.
inherits() { # WHAT COMMANDS... : a mount begun by a shell after these commands
    local what=$1
    printf '#!/bin/sh\n%s\nexec %s "$@"\n' "$2" "$program" >"$WORK/limited"
    rm -rf "$S"
    TREERING=$WORK/limited
    start_mount "$S" "$M" "capacity=64M,index_cache=8M,commit=1"
    TREERING=$program
    check "$what: writing" timeout 60 python3 "$HERE/limits.py" write "$M" 6 20
    check "$what: sync" timeout 60 "$TREERING" sync "$M"
    check "$what: what was written is there" timeout 60 python3 "$HERE/limits.py" verify "$M" 6 20
    stop_mount "$S" "$M"
    equal "$what: modes" "" "$(find "$S" ! -type d ! -perm 600 -o -type d ! -perm 700)"
    check_store "$S"
}
inherits "umask 0777" 'umask 0777'
inherits "a small stack" 'ulimit -S -s 64'
inherits "limits that may be raised" 'ulimit -S -f 100; ulimit -S -d 100000; ulimit -S -v 100000; ulimit -S -t 1; ulimit -S -l 64'
inherits "signals ignored" 'trap "" CHLD HUP TERM PIPE'
refused() { # WHAT PATTERN COMMANDS
    printf '#!/bin/sh\n%s\nexec %s "$@"\n' "$3" "$program" >"$WORK/limited"
    rm -rf "$S"
    expect_error "$1" "$2" timeout 60 "$WORK/limited" mount "$S" "$M" -o "engine=$ENGINE"
    [ -e "$S" ] && fail "$1: something was made"
    return 0
}
refused "ulimit -f" 'no file may become larger than [0-9]+ KiB \(ulimit -f\)' 'ulimit -f 1000'
refused "ulimit -v" 'no more than 300 MiB of memory .*ulimit -v' 'ulimit -v 307200'
refused "ulimit -d" 'no more than 100 MiB of memory .*ulimit -d' 'ulimit -d 102400'
"$TREERING" format "$S" --capacity 64M >/dev/null
printf '#!/bin/sh\nulimit -n 64\nexec %s "$@"\n' "$program" >"$WORK/limited"
said=$("$WORK/limited" mount "$S" "$M" -o "engine=$ENGINE" 2>&1)
MOUNTS+=("$M")
check "few descriptors are said at the mount: $said" grep -q 'only 64 files may be open (ulimit -n)' <<<"$said"
for number in XFSZ USR2 ALRM VTALRM PROF IO; do kill -$number "$(daemon_of "$S")"; done
check "stray signals end nothing" touch "$M/file"
stop_mount "$S" "$M"

# More segments than the table of descriptors ever has places.
if [ "$LONG" = 1 ]; then
    count=19000
    say "count 20000 segments"
    rm -rf "$S"
    check "format" "$TREERING" format "$S" --capacity 24G --segment-size 1M
    start_mount "$S" "$M"
    check "writing 20,000 segments" timeout 3000 python3 "$HERE/limits.py" write "$M" 5 $count
    say "note $(find "$S/segments" | wc -l) segments, $(descriptors) descriptors, $(awk '/^VmHWM/ {print $2}' "/proc/$(daemon_of "$S")/status") KiB"
    equal "20,000 segments" yes "$([ "$(find "$S/segments" | wc -l)" -gt 19000 ] && echo yes)"
    check "what was written is there" timeout 3000 python3 "$HERE/limits.py" verify "$M" 5 $count
    LEAVE_SECONDS=300
    stop_mount "$S" "$M"
    begun=$(date +%s%N)
    start_mount "$S" "$M"
    say "note mounted again in $((($(date +%s%N) - begun) / 1000000)) ms"
    check "what was written is there after a mount" timeout 3000 python3 "$HERE/limits.py" verify "$M" 5 $count
    stop_mount "$S" "$M"
    CHECK_SECONDS=1200
    check_store "$S"
fi
finish
