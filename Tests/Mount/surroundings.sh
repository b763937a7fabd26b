#!/bin/bash
# What a process finds where it is started: descriptors that are closed, paths that are no UTF-8.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
S=$WORK/store
M=$WORK/mnt
mkdir "$M" "$WORK/other"

# Standard descriptors. Whatever is closed, mount comes back, and the store is locked.
start_mount "$S" "$M"
echo kept >"$M/kept"
stop_mount "$S" "$M"
for closed in '<&-' '>&-' '2>&-' '<&- >&-' '>&- 2>&-' '<&- 2>&-' '<&- >&- 2>&-'; do
    MOUNTS+=("$M")
    eval "timeout 20 \"\$TREERING\" mount \"\$S\" \"\$M\" -o engine=\$ENGINE $closed"
    equal "mount with $closed comes back" 0 $?
    equal "what is mounted with $closed" kept "$(cat "$M/kept")"
    pid=$(daemon_of "$S")
    equal "the lock is held with $closed" 1 "$(find "/proc/$pid/fd" -lname "$S/lock" | wc -l)"
    equal "0, 1 and 2 are /dev/null with $closed" /dev/null "$(readlink "/proc/$pid/fd/0" "/proc/$pid/fd/1" "/proc/$pid/fd/2" | sort -u)"
    # A second mount waits for the first to leave: once is enough.
    [ "$closed" = '2>&-' ] && expect_error "a second mount with $closed" 'in use by process' timeout 30 "$TREERING" mount "$S" "$WORK/other"
    stop_mount "$S" "$M"
done
supervised() { timeout 20 "$TREERING" mount "$S" "$M" -o engine="$ENGINE" --supervise <&- >&- 2>&-; }
supervised
equal "a supervised mount comes back" 0 $?
equal "what is mounted" kept "$(cat "$M/kept")"
stop_mount "$S" "$M"
for command in check stats dump export; do
    more=()
    [ $command = export ] && more=("$WORK/out" --force)
    (exec <&- >&- 2>&-; timeout 30 "$TREERING" $command "$S" "${more[@]}")
    equal "$command with nothing open" 0 $?
done
equal "what was exported" kept "$(cat "$WORK/out/kept")"
check_store "$S"

# Paths are bytes: neither of these is UTF-8, and they are two.
odd=$WORK/$(printf 'alt\344')
other=$WORK/$(printf 'alt\366')
point=$WORK/$(printf 'point\377')
mkdir "$point"
mv "$S" "$odd"
start_mount "$odd" "$point"
equal "a store by its name" kept "$(cat "$point/kept")"
equal "what stats says" 0 "$("$TREERING" stats "$point" >/dev/null; echo $?)"
check "check of the mount" timeout 60 "$TREERING" check "$point" --rate 0
check "check of the mounted store" timeout 60 "$TREERING" check "$odd" --rate 0
expect_error "a message shows the bytes" 'alt\\xe4.*in use' timeout 30 "$TREERING" mount "$odd" "$M"
check "remount" timeout 30 "$TREERING" mount "$odd" "$point" -o remount,ro
kill -9 "$(daemon_of "$odd")"
wait_gone "$(daemon_of "$odd")" 10
start_mount "$odd" "$point" "" --supervise
equal "over a dead mount" kept "$(cat "$point/kept")"
stop_mount "$odd" "$point"
start_mount "$other" "$M"
equal "another store is another" "" "$(ls "$M")"
stop_mount "$other" "$M"
out=$WORK/$(printf 'out\344')
check "export" timeout 60 "$TREERING" export "$odd" "$out"
equal "what was exported" kept "$(cat "$out/kept")"
check "resize" timeout 60 "$TREERING" resize "$odd" 2G
check "repair" timeout 60 "$TREERING" check "$odd" --repair
check "dump" timeout 60 "$TREERING" dump "$odd"
check "probe" timeout 60 "$TREERING" probe "$odd"
equal "no other names were made" 4 "$(find "$WORK" -maxdepth 1 -name '*[^ -~]*' | LC_ALL=C wc -l)"
check "format" timeout 60 "$TREERING" format "$WORK/$(printf 'new\344')" --capacity 64M
check_store "$odd"
check_store "$other"
finish
