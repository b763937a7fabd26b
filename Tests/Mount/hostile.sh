#!/bin/bash
# Stores that somebody has made up: inodes whose numbers contradict each other under right checksums, pipes where files of the store should be.
# Nothing ends the daemon, nothing hangs, and a repair mends it. And exports into directories that are not empty, and as an ordinary user.
# shellcheck source=lib.sh disable=SC2016
. "$(dirname "$0")/lib.sh"
need python3 setpriv
S=$WORK/store
M=$WORK/mnt
mkdir "$M"
chmod 755 "$WORK"

change() { check "change $*" python3 "$HERE/hostile.py" "$S/index" "$@"; }

start_mount "$S" "$M" capacity=64M
mkdir -m 0741 "$M/dir" "$M/dir2"
head -c 12345 /dev/urandom >"$M/file"
chmod 0604 "$M/file"
sum=$(md5sum <"$M/file")
ln -s "$(printf 't%.0s' {1..1234})" "$M/link"
stop_mount "$S" "$M"
cp -a "$S" "$WORK/good"

# A process that was killed may be a zombie, to which signals can be sent.
lives() { kill -0 "$1" && ! grep -q '^State:.Z' "/proc/$1/status" && timeout 20 stat -f "$M"; }
# works: everything that once killed it; the daemon is there afterwards.
works() {
    local pid
    pid=$(daemon_of "$S")
    for command in 'ls -laR' 'stat -f' 'find -size +0' 'du -a'; do
        # shellcheck disable=SC2086
        timeout 20 $command "$M" >/dev/null 2>&1
    done
    timeout 20 readlink "$M/link" >/dev/null 2>&1
    timeout 20 rmdir "$M/dir" 2>/dev/null
    timeout 20 mv -T "$M/dir2" "$M/dir" 2>/dev/null
    timeout 20 bash -c 'ln "$0/file" "$0/file2"; cat "$0/file"; echo more >>"$0/file"; mv "$0/file" "$0/dir"; rm -rf "$0/file" "$0"/dir*' \
        "$M" >/dev/null 2>&1
    check "$1: the daemon is there" lives "$pid"
}
# mode, links, offset in the entry, width, value
while read -r mode links offset width value; do
    rm -rf "$S" && cp -a "$WORK/good" "$S"
    change "$mode" "$links" "$offset" "$width" "$value"
    refuse "check finds $mode at $offset = $value" timeout 60 "$TREERING" check "$S"
    MOUNTS+=("$M")
    # What no inode can have is damage of the index, and may be refused at once.
    if timeout 30 "$TREERING" mount "$S" "$M" -o "engine=$ENGINE" 2>"$WORK/message"; then
        works "$mode at $offset = $value"
        stop_mount "$S" "$M"
    else
        check "the message says what to do" grep -Eq 'damaged|check --repair' "$WORK/message"
    fi
    rm -rf "$S" && cp -a "$WORK/good" "$S"
    change "$mode" "$links" "$offset" "$width" "$value"
    timeout 60 "$TREERING" check "$S" --repair >"$WORK/message"
    equal "repair of $mode at $offset = $value" 1 $?
    check_store "$S"
    start_mount "$S" "$M"
    equal "contents after the repair" "$sum" "$(md5sum <"$M/file")"
    equal "links after the repair" "1 4" "$(stat -c %h "$M/file" "$M" | tr '\n' ' ' | sed 's/ $//')"
    stop_mount "$S" "$M"
done <<'T'
100604 1 40 8 0x8000000000000000
100604 1 112 8 0xFFFFFFFFFFFFFF9C
100604 1 20 4 0
120777 1 40 8 0x8000000000000000
40755 4 20 4 0
T

# Pipes, directories and links where files of the store should be.
for name in index superblock lock segments/00000000.seg segments/00000001.seg formatting staging-1f segments/00000099.seg; do
    for kind in mkfifo mkdir 'ln -s /dev/zero'; do
        rm -rf "$S" "$WORK/out" && cp -a "$WORK/good" "$S"
        rm -f "${S:?}/$name"
        $kind "$S/$name"
        for command in "check $S" "dump $S" "stats $S" "export $S $WORK/out" "mount $S $M"; do
            # shellcheck disable=SC2086
            timeout 20 "$TREERING" $command >/dev/null 2>&1 </dev/null
            code=$?
            if [ $code -lt 100 ]; then pass; else fail "$kind $name, $command: exit $code"; fi
        done
        if is_mounted "$M"; then
            MOUNTS+=("$M")
            stop_mount "$S" "$M"
        fi
    done
done
rm -rf "$S" && cp -a "$WORK/good" "$S"
rm "$S/index" && mkfifo "$S/index"
timeout 60 "$TREERING" check "$S" --repair >/dev/null
equal "a pipe in the place of the index is mended" 1 $?
check_store "$S"

# Export.
start_mount "$S" "$M"
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$M/closed/sub" "$M/none" "$M/after"
    echo one >"$M/closed/sub/x"
    ln "$M/closed/sub/x" "$M/zlink"
    echo two >"$M/after/y"
    cp /bin/true "$M/suid"
    chown -hR nobody "$M"
    chown root "$M/suid"
    chmod 4755 "$M/suid"
    chmod 0600 "$M/closed"
    chmod 0 "$M/none"
fi
echo right >"$M/h1"
ln "$M/h1" "$M/h2"
stop_mount "$S" "$M"
mkdir "$WORK/out2" "$WORK/out2/dir2"
chmod 0750 "$WORK/out2/dir2"
echo foreign >"$WORK/out2/h1"
timeout 60 "$TREERING" export "$S" "$WORK/out2" --force >/dev/null 2>"$WORK/message"
equal "an export over an existing name" 4 $?
equal "what was there stays" foreign "$(cat "$WORK/out2/h1")"
equal "and a further name is none of it" "right 1" "$(cat "$WORK/out2/h2") $(stat -c %h "$WORK/out2/h2")"
equal "a directory that was there keeps its mode" 750 "$(stat -c %a "$WORK/out2/dir2")"
timeout 60 "$TREERING" export "$S" "$WORK/out2" --force >/dev/null 2>"$WORK/message"
equal "names that are there are told" 2 "$(grep -c '/h[12]: File exists' "$WORK/message")"
if [ "$(id -u)" = 0 ]; then
    mkdir "$WORK/home"
    cp "$TREERING" "$WORK/treering"
    chmod 755 "$WORK/treering"
    chown -R nobody "$WORK/home" "$S"
    timeout 60 setpriv --reuid=nobody --regid=nogroup --clear-groups "$WORK/treering" export "$S" "$WORK/home/out" >"$WORK/message" 2>&1
    equal "an export by an ordinary user" 0 $?
    equal "what lies in a directory without x" one "$(cat "$WORK/home/out/closed/sub/x")"
    equal "and behind it" two "$(cat "$WORK/home/out/after/y")"
    equal "modes" "600 0 755" "$(stat -c %a "$WORK/home/out/closed" "$WORK/home/out/none" "$WORK/home/out/suid" | tr '\n' ' ' | sed 's/ $//')"
    equal "links into a directory without x" 2 "$(stat -c %h "$WORK/home/out/zlink")"
    chmod 0600 "$WORK/home/out/after"
    timeout 60 setpriv --reuid=nobody --regid=nogroup --clear-groups "$WORK/treering" export "$S" "$WORK/home/out" --force >"$WORK/message" 2>&1
    equal "over directories that cannot be entered" 4 $?
    check "it goes on" grep -q '/after: this directory was there' "$WORK/message"
    chmod -R u+rwx "$WORK/home"
fi
finish
