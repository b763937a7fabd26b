#!/bin/bash
# As an ordinary user: no root, 8 MiB of locked memory. /dev/fuse may be root's alone, so a mount namespace gets one for everybody.
# shellcheck source=lib.sh disable=SC2016
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ]; then
    say "user: is run by root, which becomes an ordinary user, skipped"
    finish
fi
need setpriv unshare prlimit fusermount3
chmod 755 "$WORK"
mkdir "$WORK/home" "$WORK/dev"
cp "$TREERING" "$WORK/treering"
chmod 755 "$WORK/treering"
chown nobody "$WORK/home"
declare -f wait_gone >"$WORK/inside.sh"
cat >>"$WORK/inside.sh" <<'P'
set -u
cd "$HOME" || exit 1
bad() { echo "FAIL: $*"; code=1; }
code=0
mkdir m
"$T" mount s m -o engine="$ENGINE" || exit 1
grep -q " $HOME/m fuse.treering " /proc/mounts || bad "not mounted"
grep " $HOME/m " /proc/mounts | grep -q user_id=65534 || bad "not the user's mount"
echo hello > m/file && [ "$(cat m/file)" = hello ] || bad "read back"
cp -r /usr/include/linux m/ && diff -r /usr/include/linux m/linux || bad "a tree"
dd if=/dev/urandom of=m/big bs=1M count=16 conv=fsync status=none || bad "16 MiB"
[ "$(stat -c %U m/file)" = nobody ] || bad "owner"
chown root m/file 2>/dev/null && bad "chown to root"
"$T" sync m || bad "sync"
"$T" stats m > /dev/null || bad "stats"
"$T" check m --rate 0 | grep -q ': clean:' || bad "check of the mount"
"$T" check s --rate 0 | grep -q ': clean:' || bad "check of the store while it is mounted"
sum=$(md5sum < m/big)
fusermount3 -u m || bad "unmount"
"$T" mount s m -o engine=posix || bad "second mount"
[ "$sum" = "$(md5sum < m/big)" ] || bad "contents after a remount"
"$T" mount s2 m 2>/dev/null && bad "mounted twice"
kill "$(cat s/lock)"
for _ in $(seq 100); do grep -q " $HOME/m " /proc/mounts || break; sleep 0.1; done
grep -q " $HOME/m " /proc/mounts && bad "still mounted after SIGTERM"
wait_gone "$(cat s/lock)" 10
"$T" check s || bad "check"
# A dead mount gives way; with a supervisor by itself.
"$T" mount s m -o engine="$ENGINE" || bad "third mount"
pid=$(cat s/lock)
kill -9 "$pid"
wait_gone "$pid" 10
"$T" mount s m -o engine="$ENGINE" --supervise || bad "over a dead mount"
[ "$(cat m/file)" = hello ] || bad "contents over a dead mount"
exec 7>m/open
kill -9 "$(cat s/lock)"
case $(uname -r) in [1-5].* | 6.[0-8].*) ;; *) echo after >&7 && [ "$(cat m/open)" = after ] || bad "a file that was open" ;; esac
exec 7>&-
for _ in $(seq 200); do [ "$(cat m/file 2>/dev/null)" = hello ] && break; sleep 0.1; done
[ "$(cat m/file)" = hello ] || bad "started again"
pid=$(cat s/lock)
fusermount3 -u m || bad "unmount of a supervised mount"
wait_gone "$pid" 10
grep -q " $HOME/m " /proc/mounts && bad "a dead mount was below"
"$T" mount s m -o allow_other 2>/dev/null && { fusermount3 -u m; echo "note: allow_other is permitted here"; }
exit $code
P
check "an ordinary user mounts, works, unmounts" timeout 120 unshare -m bash -c '
    mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse &&
    exec setpriv --reuid=nobody --regid=nogroup --clear-groups prlimit --memlock=8388608 env -i PATH="$PATH" HOME="$1/home" \
        T="$1/treering" ENGINE="$2" bash "$1/inside.sh"' bash "$WORK" "$ENGINE"
finish
