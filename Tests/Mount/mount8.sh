#!/bin/bash
# mount(8), mkfs(8) and fsck(8) call us by our helpers in /sbin. They are put there for the time of this test, never over others.
# alone: what it changes is the whole machine's.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
S=$WORK/store
M=$WORK/mnt
mkdir "$M"
scripts=$(realpath "$HERE/../../mount-scripts")
if [ "$(id -u)" != 0 ]; then
    say "mount8: needs root, skipped"
    finish
fi
installed=()
remove_helpers() { [ ${#installed[@]} -eq 0 ] || rm -f "${installed[@]}"; }
trap 'remove_helpers; interrupted' INT TERM HUP
trap 'remove_helpers; fail "ended early"; finish' EXIT
for helper in mount.treering mount.fuse.treering mkfs.treering fsck.treering; do
    # One that an earlier run of this test was killed over is replaced.
    left=$(sed -n 's/^# of test process //p' "/sbin/$helper" 2>/dev/null)
    [ -z "$left" ] || kill -0 "$left" 2>/dev/null || rm -f "/sbin/$helper"
    if [ -e "/sbin/$helper" ]; then
        say "mount8: /sbin/$helper is there already, skipped"
        remove_helpers
        finish
    fi
    printf '#!/bin/sh\n# of test process %s\nTREERING=%s exec %s/%s "$@"\n' $$ "'$TREERING'" "'$scripts'" "$helper" >"/sbin/$helper"
    chmod 755 "/sbin/$helper"
    installed+=("/sbin/$helper")
done
MOUNTS+=("$M")

check "mkfs -t treering" mkfs -t treering "$S"
check "mount -t treering" mount -t treering "$S" "$M" -o "engine=$ENGINE,noatime,nofail,x-systemd.automount,comment=hello"
DAEMONS+=("$(daemon_of "$S")")
equal "type and source" "$S $M fuse.treering" "$(awk -v m="$M" '$2 == m {print $1, $2, $3}' /proc/mounts)"
check "a file" touch "$M/file"
refuse "a second mount on top" mount -t treering "$S" "$M"
check "remount read-only" mount -o remount,ro "$M"
refuse "writing after remount,ro" touch "$M/no"
check "remount writable" mount -o remount,rw "$M"
check "writing after remount,rw" touch "$M/yes"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
# What fstab calls defaults is suid and dev for root, as for any file system; FUSE does not begin with that.
flags() { awk -v m="$M" '$2 == m {print $4}' /proc/mounts; }
mount_again() {
    check "mount with $1" mount -t treering "$S" "$M" -o "engine=$ENGINE,$1"
    DAEMONS+=("$(daemon_of "$S")")
}
mount_again defaults
equal "suid and dev by default" "" "$(flags | grep -oE 'nosuid|nodev')"
for words in ro rw noatime,relatime; do
    check "remount,$words" mount -o "remount,$words" "$M"
    equal "suid and dev after remount,$words" "" "$(flags | grep -oE 'nosuid|nodev')"
done
check "remount,nosuid" mount -o remount,nosuid "$M"
equal "nosuid, and nothing else" nosuid "$(flags | grep -oE 'nosuid|nodev')"
check "a remount that names both" mount -t treering -o remount,ro "$S" "$M"
equal "keeps nosuid" nosuid "$(flags | grep -oE 'nosuid|nodev')"
check "and back" mount -o remount,rw "$M"
check "remount with what it was mounted with" mount -o remount,commit=5,open=none "$M"
expect_error "a remount that would promise something" "ack=durable: cannot be changed by a remount" mount -o remount,ack=durable "$M"
expect_error "the same of dirsync" "ack=durable: cannot be changed by a remount" mount -o remount,dirsync "$M"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
# What was written before a remount,ro is not lost when the power fails: then staging is gone with the process.
mount_again commit=300
echo kept >"$M/kept"
check "remount,ro before the power fails" mount -o remount,ro "$M"
pid=$(daemon_of "$S")
kill -9 "$pid"
wait_gone "$pid" 20
umount -l "$M" 2>/dev/null
rm -f "/dev/shm/$(staging_of "$S")"-*
mount_again defaults
equal "what was written before a remount,ro" kept "$(cat "$M/kept")"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
mount_again user
equal "user means neither" "nosuid nodev noexec" "$(flags | grep -oE 'nosuid|nodev|noexec' | paste -sd' ')"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
mount_again strictatime,nodiratime,nosymfollow
equal "flags that libfuse does not know" "rw nodiratime nosymfollow" \
    "$(flags | tr , '\n' | grep -E '^(rw|relatime|nodiratime|nosymfollow)$' | paste -sd' ')"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
# Names are durable when the call returns: nothing of what was made is lost with the process and its staging.
mount_again dirsync
mkdir "$M/durable"
check "a sync has nothing left to do" test "$(getfattr --only-values -n treering.options "$M" 2>/dev/null | grep -c '^ack=durable')" = 1
rmdir "$M/durable"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
# A mount right after an unmount waits for the old process.
for round in 1 2 3 4 5; do
    check "mount right after umount, $round" mount -t fuse.treering "store:$S" "$M" -o "engine=$ENGINE"
    DAEMONS+=("$(daemon_of "$S")")
    touch "$M/round$round"
    check "umount, $round" umount "$M"
done
check "mount read-only" mount -t treering "$S" "$M" -o "engine=$ENGINE,ro"
DAEMONS+=("$(daemon_of "$S")")
# In use: open directories and files, the working directory of somebody, a mapping.
head -c 3000000 /dev/urandom >"$WORK/bytes"
check "remount,rw of what was mounted read-only" mount -o remount,rw "$M"
pid=$(daemon_of "$S")
cp "$WORK/bytes" "$M/old"
check "umount" umount "$M"
wait_gone "$pid" 20
check "mount read-only" mount -t treering "$S" "$M" -o "engine=$ENGINE,ro"
pid=$(daemon_of "$S")
DAEMONS+=("$pid")
exec 7<"$M" 8<"$M/old"
head -c 1000 <&8 >"$WORK/part"
expect_error "remount,rw where the store cannot be written" "Read-only file system|cannot become writable" \
    sh -c 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -o remount,rw "$2"' - "$S" "$M"
umount -l "$S"
equal "still read-only for all to see" ro "$(awk -v m="$M" '$2 == m {print substr($4, 1, 2)}' /proc/mounts)"
check "and read" cmp "$WORK/bytes" "$M/old"
(cd "$M" && mount -o remount,rw "$M" && touch here && sleep 0.1 && stat old >"$WORK/stat") || fail "remount,rw of a mount in use"
equal "by the same process" "$pid" "$(daemon_of "$S")"
check "made in the directory that was open" test -e "$M/here"
# The kernel still knows the open file: it must not go with its last name.
rm "$M/old"
cat <&8 >>"$WORK/part"
check "a file that was open before, and was removed after" cmp "$WORK/bytes" "$WORK/part"
exec 7<&- 8<&-
rm "$M/here"
check "writing after that" touch "$M/written"
equal "with the options it had" "engine=$ENGINE" "$(getfattr --only-values -n treering.options "$M" 2>/dev/null | grep '^engine=')"
equal "and the flags" "" "$(flags | grep -oE 'nosuid|nodev')"
rm "$M/written"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
check "with store: in fstab's way" mount -t fuse.treering "store:$S" "$M" -o "defaults,engine=$ENGINE,relatime,lazytime,strictatime"
DAEMONS+=("$(daemon_of "$S")")
equal "the source as it was written" "store:$S" "$(awk -v m="$M" '$2 == m {print $1}' /proc/mounts)"
equal "all rounds are there" 5 "$(find "$M" -name 'round*' | wc -l)"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
check "supervised" mount -t treering "$S" "$M" -o "engine=$ENGINE,supervise"
pid=$(daemon_of "$S")
kill -9 "$pid"
for _ in $(seq 200); do [ -e "$M/round1" ] && break; sleep 0.05; done
check "started again" test -e "$M/round1"
DAEMONS+=("$(daemon_of "$S")")
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
# The store has gone meanwhile, so it cannot be opened at all: the mount ends with a word, and the store is as it was.
check "mount read-only" mount -t treering "$S" "$M" -o "engine=$ENGINE,ro"
pid=$(daemon_of "$S")
DAEMONS+=("$pid")
mv "$S" "$S.away"
refuse "remount,rw of a store that has gone" timeout 20 mount -o remount,rw "$M"
wait_gone "$pid" 20 || fail "a process that can serve nobody stays"
if is_mounted "$M"; then fail "a mount that nobody serves stays"; else pass; fi
mv "$S.away" "$S"
check_store "$S"
# A successor of a mount that has become writable is writable.
check "supervised, read-only" mount -t treering "$S" "$M" -o "engine=$ENGINE,supervise,ro"
exec 7<"$M"
check "becomes writable" mount -o remount,rw "$M"
check "and is" touch "$M/before"
kill -9 "$(daemon_of "$S")"
for _ in $(seq 200); do [ -e "$M/before" ] && break; sleep 0.05; done
check "writable in the next process" touch "$M/after"
DAEMONS+=("$(daemon_of "$S")")
exec 7<&-
rm "$M/before" "$M/after"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
# What a killed mount left in staging is not shown by a read-only mount. It would appear below the kernel's cache.
check "mount before a kill" mount -t treering "$S" "$M" -o "engine=$ENGINE"
pid=$(daemon_of "$S")
echo staged >"$M/staged"
kill -9 "$pid"
wait_gone "$pid" 20
umount -l "$M" 2>/dev/null
check "mount read-only after a kill" mount -t treering "$S" "$M" -o "engine=$ENGINE,ro"
DAEMONS+=("$(daemon_of "$S")")
exec 7<"$M"
expect_error "remount,rw where staging waits, in use" "is in use, and would have to be mounted anew" mount -o remount,rw "$M"
exec 7<&-
check "not in use" mount -o remount,rw "$M"
DAEMONS+=("$(daemon_of "$S")")
equal "what was in staging" staged "$(cat "$M/staged")"
rm "$M/staged"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
check "mount before a death" mount -t treering "$S" "$M" -o "engine=$ENGINE"
kill_pid=$(daemon_of "$S")
kill -9 "$kill_pid"
wait_gone "$kill_pid" 10
check "mount over a dead mount" mount -t treering "$S" "$M" -o "engine=$ENGINE"
DAEMONS+=("$(daemon_of "$S")")
check "it lives" test -e "$M/round1"
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
if is_mounted "$M"; then fail "a dead mount was below"; else pass; fi
refuse "an unknown option" mount -t treering "$S" "$M" -o engine=auto,nonsense
check "an unknown option with -s" /sbin/mount.treering "$S" "$M" -s -o "engine=$ENGINE,nonsense"
DAEMONS+=("$(daemon_of "$S")")
check "umount" umount "$M"
wait_gone "$(daemon_of "$S")" 20
check "-f does nothing" /sbin/mount.treering "$S" "$M" -f -o rw
if is_mounted "$M"; then fail "mount -f mounted"; else pass; fi
check "fsck -t treering" fsck -t treering "$S"
for word in -a -p -y -n -f; do check "fsck.treering $word" /sbin/fsck.treering $word "$S"; done
/sbin/fsck.treering "$WORK/absent" >/dev/null 2>&1
equal "fsck of nothing exits 8" 8 $?
/sbin/fsck.treering >/dev/null 2>&1
equal "fsck without a store exits 16" 16 $?
refuse "mkfs over a store" mkfs -t treering "$S"
check "mkfs -f over a store" mkfs.treering -f "$S"
trap - EXIT INT TERM HUP
remove_helpers
finish
