#!/bin/bash
# Real trees and real programs: copies of system directories, git, make, SQLite, fio, a mapped writer; then the same after a
# remount with the other engine.
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need rsync git tar make gcc sqlite3 fio python3 getfattr
S=$WORK/store
M=$WORK/mnt
R=$WORK/reference
mkdir "$R"
start_mount "$S" "$M" capacity=8G

# Trees: 4,000 files and more. rsync and tar each take one part, cp the other; /usr/lib/python3 may be small.
cp -a /usr/include "$R/include"
python=/usr/lib/python3
[ "$(find $python -type f 2>/dev/null | wc -l)" -lt 200 ] && python=$(find /usr/lib -maxdepth 1 -name 'python3.*' | sort | head -n 1)
[ -d "$python" ] && cp -a "$python" "$R/python"
setfattr -n user.note -v 'a value' "$R/include" "$R/include/stdio.h" 2>/dev/null
mkdir "$R/special"
ln "$R/include/stdio.h" "$R/special/hard"
ln -s ../include/stdio.h "$R/special/soft"
mkfifo "$R/special/fifo"
touch -d '1999-12-31 23:59:59.987654321' "$R/special/old"
chmod 1777 "$R/special"
files=$(find "$R" -type f | wc -l)
[ "$files" -ge 4000 ] || say "note: only $files files here"
check "cp -a of $files files" cp -a "$R" "$M/cp"
assert_same_tree "cp -a" "$R" "$M/cp"
check "rsync -aHAX" rsync -aHX "$R/" "$M/rsync/"
assert_same_tree "rsync" "$R" "$M/rsync"
check "rsync finds nothing more to do" bash -c '[ -z "$(rsync -aHXi --checksum "$0/" "$1/")" ]' "$R" "$M/rsync"
check "tar there" bash -c 'tar -C "$0" --xattrs -cf - . | (mkdir "$1" && tar -C "$1" --xattrs -xpf -)' "$R" "$M/tar"
assert_same_tree "tar" "$R" "$M/tar"
check "tar back" bash -c 'tar -C "$1" --xattrs -cf - . | (mkdir "$0" && tar -C "$0" --xattrs -xpf -)' "$WORK/back" "$M/tar"
assert_same_tree "tar back" "$R" "$WORK/back"
rm -rf "$WORK/back"
check "rm -rf of a copy" rm -rf "$M/tar"

# git.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
git_round() {
    git init -q "$M/git" && cd "$M/git" && cp -r "$R/include/linux" . && git add -A && git commit -qm one &&
        git rm -rq linux/netfilter && git mv linux moved && git commit -qam two && git gc -q && git fsck --full --strict &&
        git checkout -q HEAD~ && git checkout -q - && [ -z "$(git status --porcelain)" ]
}
check "git init, add, commit, gc, fsck, checkout" git_round
cd "$WORK" || finish

# make: a small C project, written here.
make_round() {
    mkdir -p "$M/project" && cd "$M/project" || return 1
    local i
    for i in $(seq 40); do
        printf 'int f%d(int x) { return x * %d; }\n' "$i" "$i" >"f$i.c"
        printf 'int f%d(int);\n' "$i"
    done >all.h
    {
        printf '#include <stdio.h>\n#include "all.h"\nint main(void) { int s = 0;\n'
        for i in $(seq 40); do printf 's += f%d(1);\n' "$i"; done
        printf 'printf("%%d\\n", s); return 0; }\n'
    } >main.c
    # shellcheck disable=SC2016
    printf '%s\n' 'OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))' 'program: $(OBJECTS)' $'\tgcc -o $@ $^' \
        '%.o: %.c all.h' $'\tgcc -O1 -c -o $@ $<' >Makefile
    make -s -j4 && [ "$(./program)" = 820 ] && make -q && sleep 1 && touch f1.c && ! make -q && make -s && [ "$(./program)" = 820 ]
}
check "make, run, touch, make" make_round
cd "$WORK" || finish

# SQLite, both journals.
for mode in WAL DELETE; do
    check "SQLite $mode" bash -c '
        sqlite3 "$0" "PRAGMA journal_mode=$1; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);" &&
        for i in $(seq 20); do
            sqlite3 "$0" "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200)
                INSERT INTO t(b) SELECT hex(randomblob(100)) FROM n; DELETE FROM t WHERE a % 7 = 0; COMMIT;" || exit 1
        done
        [ "$(sqlite3 "$0" "PRAGMA integrity_check")" = ok ]' "$M/$mode.db" "$mode"
done

# fio checks each block that it wrote.
fio_verify() {
    fio --aux-path="$WORK" --name=verify --directory="$M" --size=64m --rw=randwrite --bs=4k-128k --verify=crc32c --do_verify=1 --verify_fatal=1 \
        --fallocate=none --ioengine=psync --end_fsync=1 --output="$WORK/fio" "$@" >/dev/null 2>&1 && grep -q 'err= 0' "$WORK/fio"
}
check "fio --verify" fio_verify
check "fio --verify --direct=1" fio_verify --direct=1 --bs=4k --size=16m
rm -f "$M"/verify.*

# A mapped writer.
check "mapped writer" bash -c 'python3 "$0" "$1" "$2" && cmp "$1" "$2"' "$HERE/realtree.py" "$M/mapped" "$WORK/mapped"

# After a remount, with the other engine.
sums() { (cd "$M" && find git project ./*.db mapped -type f -exec md5sum {} + | LC_ALL=C sort -k 2); }
sums >"$WORK/sums"
stop_mount "$S" "$M"
check_store "$S"
case $ENGINE in posix) ENGINE=auto ;; *) ENGINE=posix ;; esac
start_mount "$S" "$M"
assert_same_tree "cp -a after a remount" "$R" "$M/cp"
assert_same_tree "rsync after a remount" "$R" "$M/rsync"
check "other files after a remount" diff "$WORK/sums" <(sums)
check "git fsck after a remount" git -C "$M/git" fsck --full
for mode in WAL DELETE; do equal "SQLite $mode after a remount" ok "$(sqlite3 "$M/$mode.db" 'PRAGMA integrity_check')"; done
check "everything removed" bash -c 'cd "$0" && rm -rf -- * .[!.]* && [ -z "$(ls -A)" ]' "$M"
stop_mount "$S" "$M"
check_store "$S"
finish
