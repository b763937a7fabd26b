#!/bin/bash
# What can be wrong with a mount: each a clear message, a non-zero exit, and nothing changed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
S=$WORK/store
M=$WORK/mnt
mkdir "$M"
mount_it() { timeout 30 "$TREERING" mount "$@"; }
nothing_made() { [ ! -e "$S" ] && ! is_mounted "$M" && [ -z "$(ls -A "$M")" ]; }

# Options and arguments.
expect_error "unknown option" 'nonsense' mount_it "$S" "$M" -o nonsense=1
expect_error "wrong engine" 'engine=quantum.*auto, ring, posix' mount_it "$S" "$M" -o engine=quantum
expect_error "wrong number" 'queue_depth=0.*1 to 4096' mount_it "$S" "$M" -o queue_depth=0
expect_error "wrong size" 'staging=lots' mount_it "$S" "$M" -o staging=lots
expect_error "option without its value" 'commit' mount_it "$S" "$M" -o commit
expect_error "uring is for later" 'transport=uring.*not in this version' mount_it "$S" "$M" -o transport=uring
expect_error "sqpoll on posix" 'sqpoll.*posix' mount_it "$S" "$M" -o engine=posix,sqpoll
expect_error "wrong environment" 'TREERING_ENGINE.*quantum' env TREERING_ENGINE=quantum timeout 30 "$TREERING" mount "$S" "$M"
expect_error "unknown letter" '-z: unknown' mount_it -z "$S" "$M"
expect_error "one argument" 'MOUNTPOINT is missing' mount_it "$S"
expect_error "three arguments" 'too many' mount_it "$S" "$M" more
expect_error "unknown command" 'explode.*unknown command' "$TREERING" explode
expect_error "a command to come" 'bench.*not in this version' "$TREERING" bench
equal "wrong option exits 1" 1 "$(mount_it "$S" "$M" -o nonsense >/dev/null 2>&1; echo $?)"
check "nothing was made" nothing_made
check "help" "$TREERING" --help
check "help of mount" "$TREERING" mount --help
check "version" "$TREERING" --version
check "probe" "$TREERING" probe "$WORK"

# Mount points.
expect_error "missing mount point" 'no such directory.*mkdir' mount_it "$S" "$WORK/absent"
touch "$WORK/file"
expect_error "mount point is a file" 'not a directory' mount_it "$S" "$WORK/file"
expect_error "store is a file" 'not a directory' mount_it "$WORK/file" "$M"
expect_error "store below nothing" 'parent directory' mount_it "$WORK/no/such/store" "$M"
check "nothing was made" nothing_made

# Other people's directories.
mkdir -p "$WORK/foreign/sub"
echo mine >"$WORK/foreign/letter.txt"
before=$(find "$WORK/foreign" -printf '%P %T@\n' | sort)
expect_error "foreign directory" "neither empty nor a Treering store.*letter.txt" mount_it "$WORK/foreign" "$M"
expect_error "format of a foreign directory" "letter.txt" "$TREERING" format "$WORK/foreign"
expect_error "forced format of a foreign directory" "letter.txt" "$TREERING" format --force "$WORK/foreign"
equal "the foreign directory is as it was" "$before" "$(find "$WORK/foreign" -printf '%P %T@\n' | sort)"
expect_error "read-only mount of nothing" 'no store' mount_it "$S" "$M" -o ro
check "nothing was made" nothing_made

# Nesting.
start_mount "$S" "$M"
echo kept >"$M/kept"
mkdir "$WORK/other"
# Each of these waits some seconds for the owner to leave.
begin mount mount_it "$S" "$WORK/other"
begin dump "$TREERING" dump "$S"
begin format "$TREERING" format --force "$S"
expect_error "second mount at the same place" 'mounted there already' mount_it "$WORK/store2" "$M"
expect_error "repair of a mounted store" 'needs the store to itself' "$TREERING" check "$S" --repair
expect_error "format of a mounted store" '(is a store already|in use)' "$TREERING" format "$S"
expect_error "stats of something else" 'neither a mounted' "$TREERING" stats "$WORK/other"
expect_error "sync of something else" 'no Treering store is mounted' "$TREERING" sync "$WORK/other"
expect_error "second mount of the same store" 'in use by process [0-9]+' outcome mount
expect_error "dump of a mounted store" 'in use by process' outcome dump
expect_error "forced format of a mounted store" 'in use' outcome format
equal "the mount goes on" kept "$(cat "$M/kept")"
stop_mount "$S" "$M"
mkdir "$S/inside" 2>/dev/null
expect_error "mount point inside the store" 'lies in the store' mount_it "$S" "$S/inside"
rmdir "$S/inside"
mkdir -p "$WORK/outer"
expect_error "store inside the mount point" 'lies in the mount point' mount_it "$WORK/outer/new" "$WORK/outer"
ln -s "$S" "$WORK/link"
mkdir "$S/inside"
expect_error "the same through a symlink" 'lies in the store' mount_it "$WORK/link" "$S/inside"
rmdir "$S/inside"
[ -e "$WORK/outer/new" ] && fail "the refused store was made"

# Damage. The superblock has two slots, 4 KiB apart at least: one will do, none will not.
slot_size=$(($(stat -c %s "$S/superblock") / 2))
for slot in 0 1; do
    cp -a "$S" "$WORK/damaged"
    dd if=/dev/urandom of="$WORK/damaged/superblock" bs=512 count=1 seek=$((slot * slot_size / 512)) conv=notrunc status=none
    start_mount "$WORK/damaged" "$M"
    equal "contents with slot $slot damaged" kept "$(cat "$M/kept")"
    stop_mount "$WORK/damaged" "$M"
    rm -rf "$WORK/damaged"
done
cp -a "$S" "$WORK/damaged"
dd if=/dev/urandom of="$WORK/damaged/superblock" bs=4096 count=$((slot_size * 2 / 4096)) conv=notrunc status=none
before=$(cd "$WORK/damaged" && find . -type f ! -name lock -exec md5sum {} + | sort)
expect_error "both slots damaged" '[Ss]uperblock' mount_it "$WORK/damaged" "$M"
is_mounted "$M" && stop_mount "$WORK/damaged" "$M"
equal "a store that is refused is as it was" "$before" "$(cd "$WORK/damaged" && find . -type f ! -name lock -exec md5sum {} + | sort)"
rm "$WORK/damaged/superblock"
expect_error "no superblock" 'no superblock' mount_it "$WORK/damaged" "$M"
refuse "check of a store without superblock" "$TREERING" check "$WORK/damaged"
rm -rf "$WORK/damaged"

# A host file system that is full.
if [ "$(id -u)" = 0 ]; then
    mkdir "$WORK/tiny"
    if mount -t tmpfs -o size=2m none "$WORK/tiny" 2>/dev/null; then
        expect_error "store on a full disk" '([Nn]o space|room|too small)' mount_it "$WORK/tiny/store" "$M"
        check "nothing is left of it" bash -c '[ -z "$(ls -A "$0")" ]' "$WORK/tiny"
        umount -l "$WORK/tiny"
    fi
    # No /dev/fuse, in a namespace of its own.
    # shellcheck disable=SC2016
    expect_error "no /dev/fuse" '/dev/fuse: is not there' unshare -m bash -c \
        'mkdir "$1/dev" && mount -t tmpfs none "$1/dev" && touch "$1/dev/null" && mount --bind /dev/null "$1/dev/null" &&
         mount --bind "$1/dev" /dev && exec timeout 30 "$0" mount "$1/store3" "$2"' "$TREERING" "$WORK" "$M"
    [ -e "$WORK/store3" ] && fail "a store was made although there is no /dev/fuse"
fi

# The exit code of the program that waits is that of the one that serves.
equal "a mount that cannot be had exits 1 or 32" yes \
    "$(mount_it "$WORK/foreign" "$M" >/dev/null 2>&1; [ $? = 1 ] || [ $? = 32 ] && echo yes)"
start_mount "$S" "$M"
equal "and the store is well" kept "$(cat "$M/kept")"
stop_mount "$S" "$M"
check_store "$S"
finish
