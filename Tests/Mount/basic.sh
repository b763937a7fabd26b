#!/bin/bash
# What POSIX promises of files, directories, links, attributes, once through the mount and once more after a remount.
# shellcheck source=lib.sh disable=SC2016,SC2012
. "$(dirname "$0")/lib.sh"
need python3 getfattr setfattr
S=$WORK/store
M=$WORK/mnt
start_mount "$S" "$M"
cd "$M" || finish

# Files.
echo hello >a
equal "read back" hello "$(cat a)"
echo a much longer text >a
echo short >a
equal "truncated by >" short "$(cat a)"
echo more >>a
equal "appended" "short
more" "$(cat a)"
: >empty
equal "empty file" 0 "$(stat -c %s empty)"
check "1 MiB written" dd if=/dev/urandom of=big bs=64k count=16 status=none
cp big "$WORK/big"
check "1 MiB read back" cmp big "$WORK/big"
printf XYZ | dd of=big bs=1 seek=70000 conv=notrunc status=none
printf XYZ | dd of="$WORK/big" bs=1 seek=70000 conv=notrunc status=none
check "3 bytes in the middle" cmp big "$WORK/big"
truncate -s 100001 big
truncate -s 100001 "$WORK/big"
truncate -s 200000 big
truncate -s 200000 "$WORK/big"
check "cut and grown reads zeros" cmp big "$WORK/big"
refuse "O_EXCL on what exists" bash -c 'set -o noclobber; echo x > a'

# Sparse files.
truncate -s 3G sparse
equal "size of a sparse file" 3221225472 "$(stat -c %s sparse)"
printf end | dd of=sparse bs=1 seek=3000000000 conv=notrunc status=none
equal "hole reads zeros" 0 "$(dd if=sparse bs=1M skip=1000 count=1 status=none | tr -d '\0' | wc -c)"
equal "data behind the hole" end "$(dd if=sparse bs=1 skip=3000000000 count=3 status=none)"
equal "a sparse file takes little room" yes "$([ "$(stat -c %b sparse)" -lt 2048 ] && echo yes)"

# Directories.
mkdir -p d/e/f
equal "links of a directory" 3 "$(stat -c %h d)"
refuse "rmdir of a full directory" rmdir d/e
refuse "rmdir of a file" rmdir a
refuse "unlink of a directory" unlink d
touch d/1 d/2 d/3
equal "listing" "1 2 3 e" "$(ls d | tr '\n' ' ' | sed 's/ $//')"
rmdir d/e/f
equal "links of a directory after rmdir" 2 "$(stat -c %h d/e)"
check "5000 names" bash -c 'mkdir many && cd many && for i in $(seq 5000); do : > name-$i; done'
equal "5000 names listed" 5000 "$(ls many | sort -u | wc -l)"
check "5000 names removed while listing" bash -c 'find many -type f -delete && rmdir many'

# Links.
ln a hard
equal "hard link count" 2 "$(stat -c %h a)"
equal "same inode" "$(stat -c %i a)" "$(stat -c %i hard)"
echo changed >hard
equal "through the other name" changed "$(cat a)"
rm a
equal "link count after unlink" 1 "$(stat -c %h hard)"
ln -s hard soft
equal "symlink target" hard "$(readlink soft)"
equal "through the symlink" changed "$(cat soft)"
long=$(printf 'x%.0s' $(seq 1000))
ln -s "$long" longlink
equal "long symlink" "$long" "$(readlink longlink)"
refuse "hard link to a directory" ln d dlink

# Rename.
mv hard a
refuse "old name after rename" test -e hard
echo one >r1
echo two >r2
mv r1 r2
equal "rename over a file" one "$(cat r2)"
mkdir rd1 rd2
touch rd2/x
refuse "rename over a full directory" mv -T rd1 rd2
rm rd2/x
check "rename over an empty directory" mv -T rd1 rd2
refuse "rename into itself" python3 -c 'import os; os.rename("d", "d/e/inside")'
check "RENAME_NOREPLACE and RENAME_EXCHANGE" python3 - <<'P'
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(a, b, flags):
    return 0 if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) == 0 else ctypes.get_errno()
open("n1", "w").write("1"); open("n2", "w").write("2")
assert renameat2("n1", "n2", 1) == errno.EEXIST
assert renameat2("n1", "n3", 1) == 0
assert renameat2("n3", "n2", 2) == 0
assert open("n3").read() == "2" and open("n2").read() == "1"
assert renameat2("n3", "absent", 2) == errno.ENOENT
assert renameat2("n3", "n4", 8) == errno.EINVAL
assert renameat2("n3", "n4", 4) == 0
os.mkdir("nd"); os.mkdir("nd/sub")
assert renameat2("nd", "n2", 2) == 0
assert os.path.isdir("n2/sub") and open("nd").read() == "1"
P

# Names.
n255=$(printf 'n%.0s' $(seq 255))
check "a name of 255 bytes" touch "$n255"
refuse "a name of 256 bytes" touch "${n255}n"
check "odd names" python3 - <<'P'
import os
names = [b"with space", b"new\nline", b"\xff\xfe", "grüße".encode(), b"-dash", b"*", b"\\"]
os.mkdir("odd")
for name in names: open(b"odd/" + name, "wb").write(name)
assert sorted(os.listdir(b"odd")) == sorted(names), os.listdir(b"odd")
for name in names: assert open(b"odd/" + name, "rb").read() == name
P

# Modes, owners, times.
touch m
chmod 4751 m
equal "mode" 4751 "$(stat -c %a m)"
if [ "$(id -u)" = 0 ]; then
    chown 1234:5678 m
    equal "owner" 1234:5678 "$(stat -c %u:%g m)"
    mknod null c 1 3
    equal "device number" "1:3 character special file" "$(stat -c '%Hr:%Lr %F' null 2>/dev/null || echo "1:3 $(stat -c %F null)")"
    mknod blk b 259 70000
    equal "large minor number" "103:11170" "$(stat -c '%t:%T' blk)"
fi
mkfifo pipe
equal "fifo" fifo "$(stat -c %F pipe)"
check "through a fifo" bash -c 'echo x > pipe & [ "$(timeout 5 cat pipe)" = x ]'
check "a socket" python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
touch -d '2001-02-03 04:05:06.123456789 UTC' t
equal "times with nanoseconds" 981173106.123456789 "$(stat -c %.9Y t)"
touch -d '1960-01-01 UTC' t
equal "a time before 1970" -315619200 "$(stat -c %Y t)"
before=$(stat -c %.9Z t)
sleep 0.02
chmod 600 t
equal "chmod changes ctime" yes "$([ "$(stat -c %.9Z t)" != "$before" ] && echo yes)"
before=$(stat -c %.9Y d)
sleep 0.02
touch d/new
equal "a new name changes the directory's mtime" yes "$([ "$(stat -c %.9Y d)" != "$before" ] && echo yes)"
before=$(stat -c %.9Y a)
sleep 0.02
echo x >>a
equal "a write changes mtime" yes "$([ "$(stat -c %.9Y a)" != "$before" ] && echo yes)"
before=$(stat -c %.9Z a)
sleep 0.02
ln a a2
equal "link changes ctime" yes "$([ "$(stat -c %.9Z a)" != "$before" ] && echo yes)"

# Extended attributes.
check "setfattr" setfattr -n user.one -v 1 a
check "setfattr of 3000 bytes" setfattr -n user.big -v "$(printf 'v%.0s' $(seq 3000))" a
equal "getfattr" 1 "$(getfattr -n user.one --only-values a)"
equal "getfattr of 3000 bytes" 3000 "$(getfattr -n user.big --only-values a | wc -c)"
equal "names" "user.big user.one" "$(getfattr a | grep ^user | sort | tr '\n' ' ' | sed 's/ $//')"
check "remove one" setfattr -x user.one a
refuse "the removed one" getfattr -n user.one a
refuse "remove it again" setfattr -x user.one a
check "XATTR_CREATE and XATTR_REPLACE" python3 - <<'P'
import errno, os
def fails(number, *arguments):
    try: os.setxattr("a", *arguments)
    except OSError as error: assert error.errno == number, error; return
    raise AssertionError("no error")
fails(errno.ENODATA, "user.new", b"x", os.XATTR_REPLACE)
os.setxattr("a", "user.new", b"x", os.XATTR_CREATE)
fails(errno.EEXIST, "user.new", b"y", os.XATTR_CREATE)
os.setxattr("a", "user.new", b"", os.XATTR_REPLACE)
assert os.getxattr("a", "user.new") == b""
P
check "an ACL that is a mode" setfattr -n system.posix_acl_access -v 0sAgAAAAEABgD/////BAAEAP////8gAAQA/////w== a
equal "and its mode" 644 "$(stat -c %a a)"
refuse "an ACL that is none" setfattr -n system.posix_acl_access -v 0sAgAAAAEABgD///// a
refuse "a name without a namespace" setfattr -n plain -v 1 a
equal "the virtual attributes are not listed" "" "$(getfattr -m - . | grep treering)"
check "statistics" bash -c '"$0" stats "$1" && "$0" stats "$1" --json | python3 -m json.tool && "$0" stats "$1" --prometheus' "$TREERING" "$M"

# Open files.
check "an unlinked open file lives on" python3 - <<'P'
import os
descriptor = os.open("gone", os.O_RDWR | os.O_CREAT, 0o600)
os.write(descriptor, b"before")
os.unlink("gone")
assert not os.path.exists("gone")
assert os.fstat(descriptor).st_nlink == 0
os.write(descriptor, b" after")
assert os.pread(descriptor, 100, 0) == b"before after"
os.ftruncate(descriptor, 3)
assert os.fstat(descriptor).st_size == 3
os.close(descriptor)
P
check "a file renamed over while open lives on" python3 - <<'P'
import os
open("o1", "w").write("old"); open("o2", "w").write("new")
descriptor = os.open("o1", os.O_RDONLY)
os.rename("o2", "o1")
assert os.read(descriptor, 10) == b"old" and open("o1").read() == "new"
P
check "O_APPEND by eight writers" python3 - <<'P'
import os
def writer(n):
    descriptor = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for i in range(200): os.write(descriptor, b"%d %06d\n" % (n, i))
    os._exit(0)
children = []
for n in range(8):
    pid = os.fork()
    if pid == 0: writer(n)
    children.append(pid)
for pid in children: assert os.waitpid(pid, 0)[1] == 0
lines = open("log", "rb").read().split(b"\n")[:-1]
assert len(lines) == 1600 and len(set(lines)) == 1600, len(set(lines))
P
check "mmap, shared and private" python3 - <<'P'
import mmap, os
descriptor = os.open("mapped", os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 1 << 20)
shared = mmap.mmap(descriptor, 1 << 20)
shared[5000:5005] = b"hello"
shared[(1 << 20) - 1:] = b"!"
shared.flush()
assert os.pread(descriptor, 5, 5000) == b"hello"
os.pwrite(descriptor, b"HELLO", 5000)
assert shared[5000:5005] == b"HELLO"
private = mmap.mmap(descriptor, 1 << 20, flags=mmap.MAP_PRIVATE)
private[0:1] = b"p"
assert os.pread(descriptor, 1, 0) == b"\0"
shared.close()
P
check "O_DIRECT" dd if="$WORK/big" of=direct bs=4096 oflag=direct conv=fsync status=none count=20
check "O_DIRECT read" bash -c 'dd if=direct bs=4096 iflag=direct status=none | cmp - <(head -c 81920 "$0")' "$WORK/big"
check "fsync of a file and of a directory" sync a d
check "treering sync" "$TREERING" sync "$M"
check "locks" flock -n a true
check "df" df .

# The same after a remount.
cd "$WORK" || finish
describe "$M" >"$WORK/before"
xattrs "$M" >>"$WORK/before"
# Without the gigabytes of zeros.
sum=$(cd "$M" && find . -type f ! -name sparse -exec md5sum {} + | sort | md5sum)
again "$S" "$M"
describe "$M" >"$WORK/after"
xattrs "$M" >>"$WORK/after"
check "the tree after a remount" diff "$WORK/before" "$WORK/after"
equal "contents after a remount" "$sum" "$(cd "$M" && find . -type f ! -name sparse -exec md5sum {} + | sort | md5sum)"
equal "data behind the hole after a remount" end "$(dd if="$M/sparse" bs=1 skip=3000000000 count=3 status=none)"
refuse "the unlinked file after a remount" test -e "$M/gone"
again "$S" "$M" ro
refuse "writing to a read-only mount" touch "$M/x"
equal "reading from a read-only mount" one "$(cat "$M/r2")"
stop_mount "$S" "$M"
check_store "$S"
finish
