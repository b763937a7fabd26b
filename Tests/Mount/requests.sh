#!/bin/bash
# How many messages an operation costs: what the kernel asks the server is counted (`-d` tells each request), so that a round trip
# that was got rid of does not come back.
# alone: what others do at the same time would be counted as well.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
S=$WORK/store
M=$WORK/mnt
mkdir "$M"
chmod 755 "$WORK"
MOUNTS+=("$M")
STORES+=("$S")
options=''
[ "$(id -u)" = 0 ] && options=,allow_other,suid
"$TREERING" mount "$S" "$M" -f -d -o "engine=$ENGINE$options" >"$WORK/log" 2>&1 &
DAEMONS+=($!)
for _ in $(seq 100); do is_mounted "$M" && break; sleep 0.1; done
stat "$M" >/dev/null

# requests COMMAND... : the opcodes of the requests that it caused, with their numbers: "SETATTR 1 WRITE 1".
requests() {
    local before
    before=$(wc -l <"$WORK/log")
    "$@" >/dev/null
    # The log is written before the answer goes out, but FORGET and RELEASE have none.
    sleep 0.1
    tail -n +$((before + 1)) "$WORK/log" | grep -o 'opcode: [A-Z_0-9]*' | LC_ALL=C sort | uniq -c | awk '{print $3, $1}' | paste -sd' '
}
python() { python3 -c "$1" "$M/f"; }
# shellcheck disable=SC2001
number() { case " $2 " in *" $1 "*) sed "s/.* $1 \([0-9]*\).*/\1/" <<<" $2 " ;; *) echo 0 ;; esac; }

echo 'a longer text' >"$M/f"
seen=$(requests bash -c 'echo short >"$0"' "$M/f")
say "    echo short > f: $seen"
equal "requests of overwriting: one SETATTR, one WRITE" "1 1" "$(number SETATTR "$seen") $(number WRITE "$seen")"
# The kernel forgets that there is no security.capability with every answer that carries attributes, and asks again once.
equal "requests of overwriting: at most one GETXATTR" yes "$([ "$(number GETXATTR "$seen")" -le 1 ] && echo yes)"
equal "requests of overwriting: at most four" yes "$([ "$(awk '{for (i = 2; i <= NF; i += 2) n += $i; print n}' <<<"$seen")" -le 4 ] && echo yes)"
equal "what was written" short "$(cat "$M/f")"

seen=$(requests python 'import os, sys; f = os.open(sys.argv[1], os.O_WRONLY); [os.pwrite(f, b"x" * 4096, n * 4096) for n in range(256)]')
say "    256 writes of 4 KiB: $seen"
equal "a WRITE for each" 256 "$(number WRITE "$seen")"
equal "at most one GETXATTR for all" yes "$([ "$(number GETXATTR "$seen")" -le 1 ] && echo yes)"
equal "nothing else" "" "$(sed 's/GETXATTR [0-9]*//; s/WRITE 256//; s/GETATTR 1//; s/FLUSH 1//; s/ //g' <<<"$seen")"

seen=$(requests python 'import os, sys; [os.stat(sys.argv[1]) for _ in range(1000)]')
say "    1000 stats: $seen"
equal "stat is answered by the kernel" yes "$([ "$(number GETATTR "$seen")" -le 1 ] && [ "$(number LOOKUP "$seen")" -le 1 ] && echo yes)"

python 'import sys; open(sys.argv[1], "rb").read()'
# Python asks each file whether it is a terminal: that ioctl goes to the server, whoever that is.
# Others may make the kernel drop pages in between: then it is tried again.
for _ in 1 2 3; do
    seen=$(requests python 'import sys; [open(sys.argv[1], "rb").read() for _ in range(100)]')
    [ "$(number READ "$seen")" = 0 ] && break
done
say "    100 times open, read 1 MiB, close: $seen"
equal "re-reading costs nothing" yes "$([ "$(number READ "$seen")" = 0 ] && [ "$(number OPEN "$seen")" = 0 ] && echo yes)"

if [ "$(id -u)" = 0 ]; then
    chmod 6777 "$M/f"
    stat "$M/f" >/dev/null
    python 'import os, sys; os.setresgid(61002, 61002, 61002); os.setresuid(61002, 61002, 61002); os.write(os.open(sys.argv[1], os.O_WRONLY), b"x")'
    equal "suid and sgid are gone from stat after another user's write" 777 "$(stat -c %a "$M/f")"
fi
fusermount3 -u "$M"
wait_gone "${DAEMONS[0]}" 30 || fail "the server is still there"
check_store "$S"
finish
