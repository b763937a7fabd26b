#!/bin/bash
# Metadata: permissions, access control lists, extended attributes, times, names, flags, handles, locks. meta/run.py runs the same calls
# in a directory of ext4 and in the mount and prints what came of each; the rest is what only one side can show.
# shellcheck source=lib.sh disable=SC2016
. "$(dirname "$0")/lib.sh"
need python3 getfattr setfattr
S=$WORK/store
M=$WORK/mnt
if [ "$(id -u)" != 0 ]; then
    say "meta: needs root, skipped"
    finish
fi

# The oracle: a directory of ext4, here or in an image of its own.
E=$WORK/ext4
mkdir "$E"
if [ "$(stat -f -c %T "$WORK")" != ext2/ext3 ]; then
    truncate -s 64M "$WORK/image"
    mkfs.ext4 -q "$WORK/image" && mount -o loop "$WORK/image" "$E" || E=''
fi
if [ -n "$E" ]; then timeout 100 python3 "$HERE/meta/run.py" "$E" >"$WORK/theirs" 2>&1; else
    say "meta: no ext4 here, the comparison is left out"
fi
trap '[ -n "$E" ] && umount "$E" 2>/dev/null; fail "ended early"; finish' EXIT

# compare WHAT OPTIONS [PATTERN] : meta/run.py on both sides; lines that match the pattern may differ, and must.
compare() {
    local what=$1 options=$2 pattern=${3:-} differences
    rm -rf "$S"
    start_mount "$S" "$M" "allow_other,dev,suid,capacity=512M,$options"
    mkdir "$M/t"
    timeout 100 python3 "$HERE/meta/run.py" "$M/t" >"$WORK/ours" 2>&1
    equal "$what: no test was cut short" "" "$(grep raised "$WORK/ours")"
    equal "$what: everything was run" yes "$([ "$(wc -l <"$WORK/ours")" -ge 400 ] && echo yes)"
    if [ -n "$E" ]; then
        diff "$WORK/theirs" "$WORK/ours" | grep '^[<>]' >"$WORK/differences"
        if [ -n "$pattern" ]; then
            differences=$(grep -vE "$pattern" "$WORK/differences")
            equal "$what: what differs where it must" yes "$(grep -qE "$pattern" "$WORK/differences" && echo yes)"
        else
            differences=$(cat "$WORK/differences")
        fi
        if [ -z "$differences" ]; then pass; else
            fail "$what: ext4 (<) and this mount (>) differ"
            printf '%s\n' "$differences" | head -20 | sed 's/^/    /'
        fi
    fi
    stop_mount "$S" "$M"
    check_store "$S"
}
compare "metadata" ""
compare "metadata, open=handle" "open=handle"
# The kernel then keeps times and size by itself, and what an immutable file refuses shows when it is written back (docs/posix.md). It also reads
# the rest of a page that is written in part, which the server takes for an access if it comes late: that time shows at the next truncation.
compare "metadata, writeback_cache=on" "writeback_cache=on" \
    '^[<>] (changing_times: (truncate|truncate to the same|chattr) |inode_flags: immutable (append|chmod|write by an open descriptor) )'
[ -n "$E" ] && umount "$E" 2>/dev/null
trap 'fail "ended early"; finish' EXIT

# What is there after a remount.
rm -rf "$S"
start_mount "$S" "$M" "allow_other,dev,suid,capacity=512M"
cd "$M" || finish
mkdir d
touch d/f
check "a file with everything" python3 - <<'P'
import os, struct
os.setxattr("d/f", "user.big", bytes(65536))
for number in range(1000): os.setxattr("d/f", "user.%04d" % number, b"%d" % number)
assert len(os.listxattr("d/f")) == 1001
for seconds in (-(1 << 33), 1 << 40, -(1 << 40)):
    os.utime("d/f", ns=(seconds * 10**9 + 5, seconds * 10**9 + 6))
    status = os.stat("d/f")
    assert (status.st_atime_ns, status.st_mtime_ns) == (seconds * 10**9 + 5, seconds * 10**9 + 6), status
P
check "a list of names beyond 64 KiB" python3 - <<'P'
import errno, os
open("names", "w")
for number in range(300): os.setxattr("names", "user.%s%03d" % ("n" * 240, number), b"")
try: os.listxattr("names")
except OSError as error: assert error.errno == errno.E2BIG, error
else: raise AssertionError("no error")
P
# What setfacl makes of it, where there is no setfacl.
list=0x0200000001000700ffffffff02000700e803000004000500ffffffff08000500e903000010000700ffffffff20000500ffffffff
setfacl -d -m u:1000:rwx,g:1001:rx d 2>/dev/null || setfattr -n system.posix_acl_default -v $list d
mkdir d/sub
chattr +i d/f
born=$(stat -c %W d/f)
lists=$(getfattr -R -d -m '^system' -e hex . 2>/dev/null)
equal "lists are there" yes "$(printf '%s' "$lists" | grep -q posix_acl_default && echo yes)"
check "a file handle" python3 "$HERE/meta/handle.py" save "$WORK/handle"
inode=$(stat -c %i d/f)
cd "$WORK" || finish
again "$S" "$M" "allow_other,dev,suid"
cd "$M" || finish
equal "the handle after a remount" "$inode" "$(python3 "$HERE/meta/handle.py" open "$WORK/handle")"
equal "time of birth after a remount" "$born" "$(stat -c %W d/f)"
equal "lists after a remount" "$lists" "$(getfattr -R -d -m '^system' -e hex . 2>/dev/null)"
equal "1,001 attributes after a remount" 1001 "$(getfattr -d -m '^user' d/f 2>/dev/null | grep -c =)"
equal "chattr after a remount" i "$(lsattr d/f | cut -c5)"
refuse "removing what is immutable after a remount" rm -f d/f
chattr -i d/f
rm d/f
equal "the handle of what is gone" "Stale file handle" "$(python3 "$HERE/meta/handle.py" open "$WORK/handle")"

# File capabilities end with the next write of somebody else.
cp /bin/true program
setfattr -n security.capability -v 0x0000000200200000000000000000000000000000 program
chmod 777 program
check "a write" setpriv --reuid=1000 --regid=1000 --clear-groups sh -c 'echo x >> program'
refuse "capabilities after another user's write" getfattr -n security.capability program

# ioctls for administrators.
check "fstrim" fstrim "$M"
as_user() { setpriv --reuid=1000 --regid=1000 --clear-groups "$@"; }
chmod 755 "$WORK"
chmod 777 .
equal "FITRIM of a user" EPERM "$(python3 "$HERE/meta/control.py" 0xc0185879 'bytes(24)' user)"
# struct fstrim_range: start, length, least length.
equal "FITRIM beyond the end" EINVAL "$(python3 "$HERE/meta/control.py" 0xc0185879 'struct.pack("3Q", 1 << 60, 1 << 30, 0)')"
equal "FITRIM of less than a block" EINVAL "$(python3 "$HERE/meta/control.py" 0xc0185879 'struct.pack("3Q", 0, 4095, 0)')"
equal "FITRIM with a least length that nothing has" EINVAL "$(python3 "$HERE/meta/control.py" 0xc0185879 'struct.pack("3Q", 0, 1 << 60, 1 << 60)')"
equal "FITRIM of a place where there is nothing tells of 0 bytes" "$(python3 -c 'import struct; print(struct.pack("3Q", 1 << 20, 0, 0))')" \
    "$(python3 "$HERE/meta/control.py" 0xc0185879 'struct.pack("3Q", 1 << 20, 4096, 0)')"
equal "shutdown by a user" EPERM "$(python3 "$HERE/meta/control.py" 0x8004587d 'struct.pack("I", 2)' user)"
equal "shutdown in an unknown way" EINVAL "$(python3 "$HERE/meta/control.py" 0x8004587d 'struct.pack("I", 9)')"

# Shut down: what was synced is there afterwards, with mode 2 nothing that was not written; the mode before flushes.
echo synced >synced
sync synced
echo unsynced >unsynced
python3 "$HERE/meta/control.py" 0x8004587d 'struct.pack("I", 2)' >"$WORK/answer"
refuse "anything after a shutdown" ls "$M"
refuse "writing after a shutdown" touch "$M/x"
cd "$WORK" || finish
stop_mount "$S" "$M"
check_store "$S"
start_mount "$S" "$M" "allow_other"
equal "synced before the shutdown" synced "$(cat "$M/synced")"
refuse "unsynced before a shutdown without a flush" test -e "$M/unsynced"
echo flushed >"$M/flushed"
(cd "$M" && python3 "$HERE/meta/control.py" 0x8004587d 'struct.pack("I", 1)') >/dev/null
kill_mount "$S" "$M"
start_mount "$S" "$M" "allow_other"
equal "unsynced before a shutdown with a flush" flushed "$(cat "$M/flushed")"
stop_mount "$S" "$M"
check_store "$S"

# open=handle: EPERM comes at open.
start_mount "$S" "$M" "open=handle"
echo x >"$M/sealed"
chattr +i "$M/sealed"
equal "open of an immutable file" EPERM "$(python3 -c 'import errno, os, sys
try: os.open(sys.argv[1], os.O_WRONLY)
except OSError as error: print(errno.errorcode[error.errno])' "$M/sealed")"
chattr -i +a "$M/sealed"
refuse "open of an append-only file" python3 -c 'import os, sys; os.open(sys.argv[1], os.O_WRONLY)' "$M/sealed"
check "appending" sh -c 'echo y >> "$1"' sh "$M/sealed"
chattr -a "$M/sealed"
stop_mount "$S" "$M"

# A store that cannot be written.
mkdir "$WORK/readonly"
mount --bind "$S" "$WORK/readonly" && mount -o remount,bind,ro "$WORK/readonly"
start_mount "$WORK/readonly" "$M" "ro"
equal "reading a read-only store" "x
y" "$(cat "$M/sealed")"
refuse "writing a read-only store" touch "$M/x"
stop_mount "$WORK/readonly" "$M"
umount -l "$WORK/readonly"

# Without lists, and without access times.
start_mount "$S" "$M" "noacl,noatime"
refuse "a list with noacl" setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff04000400ffffffff20000400ffffffff "$M/sealed"
(umask 027 && touch "$M/masked")
equal "umask with noacl" 640 "$(stat -c %a "$M/masked")"
stop_mount "$S" "$M"

# Other users, and ids mapped.
start_mount "$S" "$M"
refuse "another user without allow_other" as_user ls "$M"
stop_mount "$S" "$M"
start_mount "$S" "$M" "allow_other"
check "another user with allow_other" as_user ls "$M"
mkdir "$WORK/mapped" "$M/idmap"
chown 1000:1000 "$M/idmap"
check "a mount with mapped ids" unshare -m python3 - "$M/idmap" "$WORK/mapped" <<'P'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
def must(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    must(libc.unshare(0x10000000))
    os.write(writing, b"x")
    libc.pause()
os.read(reading, 1)
for kind in "ug": open(f"/proc/{pid}/{kind}id_map", "w").write("1000 2000 1")
space = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
tree = must(libc.syscall(OPEN_TREE, -100, sys.argv[1].encode(), 1 | 0x80000))
attributes = struct.pack("QQQQ", 0x100000, 0, 0, space)
must(libc.syscall(MOUNT_SETATTR, tree, b"", 0x1000, attributes, len(attributes)))
must(libc.syscall(MOVE_MOUNT, tree, b"", -100, sys.argv[2].encode(), 4))
os.kill(pid, 9)
assert os.stat(sys.argv[2]).st_uid == 2000, os.stat(sys.argv[2])
child = os.fork()
if child == 0:
    os.setgroups([]), os.setresgid(2000, 2000, 2000), os.setresuid(2000, 2000, 2000)
    os.chdir(sys.argv[2])
    open("made", "w").write("x")
    os.mkdir("made.d")
    os.chmod("made", 0o600)
    assert os.stat("made").st_uid == 2000
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.stat(sys.argv[1] + "/made").st_uid == 1000, os.stat(sys.argv[1] + "/made")
P
stop_mount "$S" "$M"

# In a user namespace of one's own, as its root.
mkdir "$WORK/dev" "$WORK/home"
cp "$TREERING" "$WORK/treering"
chmod 755 "$WORK/treering"
chown nobody "$WORK/home"
check "in a user namespace" timeout 60 unshare -m bash -c '
    mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse &&
    exec setpriv --reuid=nobody --regid=nogroup --clear-groups env -i PATH="$PATH" HOME="$1/home" T="$1/treering" ENGINE="$2" \
        unshare -Urm bash -c "
            cd \"\$HOME\" && mkdir m && \"\$T\" mount s m -o engine=\$ENGINE,capacity=64M &&
            echo x >m/f && chmod 4755 m/f && setfattr -n user.a -v 1 m/f && mkdir m/d && umount m"' bash "$WORK" "$ENGINE"
finish
