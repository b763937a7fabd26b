#!/bin/bash
# kill -9 of the serving process in the middle of work: three times, or TREERING_KILLS times (CI and the long tier), with seeds from
# TREERING_KILL_SEED on. After the next mount nothing that was acknowledged is lost, and the check is clean.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 git fio
S=$WORK/store
M=$WORK/mnt
rounds=${TREERING_KILLS:-3}
seed=${TREERING_KILL_SEED:-1}
kills=0
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t

# A loop of operations. What it is about to do goes to the log before, that it was done after: the log is outside of the mount, so
# its last line tells all that was acknowledged.
cat >"$WORK/operations.py" <<'P'
import os, random, sys
root, log, seed = sys.argv[1], open(sys.argv[2], "a", buffering=1), int(sys.argv[3])
generator = random.Random(seed)
names = []
number = 0
def note(*words): log.write(" ".join(str(word) for word in words) + "\n")
def done(): log.write("ok\n")
os.makedirs(root, exist_ok=True)
try:
    while True:
        choice = generator.randrange(10)
        if choice < 5 or len(names) < 3:
            name = f"s{seed}-{number}"; number += 1
            count = generator.choice([0, 1, 100, 3000, 5000, 70000])
            note("create", name)
            descriptor = os.open(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            done()
            names.append(name)
            if count:
                fill = generator.randrange(1, 256)
                note("write", name, count, fill)
                assert os.write(descriptor, bytes([fill]) * count) == count
                done()
            os.close(descriptor)
        elif choice < 8:
            at = generator.randrange(len(names))
            new = f"s{seed}-{number}"; number += 1
            note("rename", names[at], new)
            os.rename(f"{root}/{names[at]}", f"{root}/{new}")
            done()
            names[at] = new
        else:
            name = names.pop(generator.randrange(len(names)))
            note("unlink", name)
            os.unlink(f"{root}/{name}")
            done()
except OSError:
    pass
P

# Replays the logs of all rounds and compares. The operation that each log ends in may have happened or not.
cat >"$WORK/compare.py" <<'P'
import os, sys
root, logs = sys.argv[1], sys.argv[2:]
def apply(state, words):
    state = dict(state)
    kind, name, *rest = words
    if kind == "create": state[name] = b""
    elif kind == "write": state[name] = bytes([int(rest[1])]) * int(rest[0])
    elif kind == "rename": state[rest[0]] = state.pop(name)
    else: del state[name]
    return state
allowed = {}
total = 0
for path in logs:
    state, pending = {}, None
    for line in open(path):
        words = line.split()
        if not line.endswith("\n"): break
        if words == ["ok"]:
            state, pending = apply(state, pending), None
            total += 1
        else: pending = words
    states = [state] + ([apply(state, pending)] if pending else [])
    prefix = os.path.basename(path).split(".")[0] + "-"
    found = {name: open(f"{root}/{name}", "rb").read() for name in os.listdir(root) if name.startswith(prefix)}
    if found not in states:
        lost = [name for name in state if found.get(name) != state[name]]
        extra = [name for name in found if name not in state]
        sys.exit(f"{path}: differ {lost[:5]}, not expected {extra[:5]}, pending {pending}; "
                 + ", ".join(f"{name}: {len(found.get(name, b'-'))} bytes" for name in lost[:3]))
print(total, "operations")
if total == 0: sys.exit("nothing was acknowledged, so nothing was tested")
P

start_mount "$S" "$M"
for round in $(seq "$rounds"); do
    python3 "$WORK/operations.py" "$M/operations" "$WORK/s$round.log" "$round" 2>"$WORK/err" &
    loop=$!
    # A repository in every round would make the many rounds of CI and the long tier slow; three show what there is to see.
    [ "$round" -gt 3 ] || (
        git init -q "$M/git$round" && cp -r /usr/include/linux "$M/git$round/" && cd "$M/git$round" && git add -A && git commit -qm x
    ) >/dev/null 2>&1 &
    git=$!
    fio --aux-path="$WORK" --name="fio$round" --directory="$M" --size=16m --rw=randwrite --bs=4k --verify=crc32c --do_verify=0 --fallocate=none \
        --ioengine=psync --time_based --runtime=30 >/dev/null 2>&1 &
    fio=$!
    sleep "1.$((round * 3 % 10))"
    kill_mount "$S" "$M"
    # shellcheck disable=SC2086
    wait $loop $git $fio 2>/dev/null
    [ -s "$WORK/err" ] && say "    $(tail -n 1 "$WORK/err")"
    start_mount "$S" "$M"
    # This round and the last; all of them at the end.
    logs=("$WORK/s$round.log")
    [ "$round" -gt 1 ] && logs+=("$WORK/s$((round - 1)).log")
    check "round $round: everything acknowledged is there" python3 "$WORK/compare.py" "$M/operations" "${logs[@]}"
    # The repository that was being filled can be finished, and every object in it is whole.
    rm -f "$M/git$round/.git/index.lock"
    [ "$round" -gt 3 ] || check "round $round: git goes on" bash -c 'git init -q "$0" && mkdir -p "$0/linux" && cd "$0" && cp -r /usr/include/linux . && git add -A &&
        { git diff --cached --quiet HEAD 2>/dev/null || git commit -qm again; } && git fsck --full' "$M/git$round"
    # Each block that fio wrote is whole: old or new, never a mixture.
    check "round $round: fio's blocks are whole" python3 - "$M/fio$round.0.0" <<'P'
import struct, sys, zlib
try: data = open(sys.argv[1], "rb").read()
except FileNotFoundError: sys.exit(0)
# struct verify_header: magic u16 0xacca, verify_type u16, len u32, rand_seed u64, offset u64, ...
for start in range(0, len(data) - 4095, 4096):
    block = data[start:start + 4096]
    if not any(block): continue
    magic, kind, count, seed, offset = struct.unpack_from("<HHIQQ", block)
    assert magic == 0xACCA and count == 4096, f"block at {start}: magic {magic:x}, length {count}"
    assert offset == start, f"block at {start} says it belongs to {offset}"
P
done
# With the kernel's writeback cache what was closed or synced is kept.
cat >"$WORK/closed.py" <<'P'
import os, sys
root, log = sys.argv[1], open(sys.argv[2], "a", buffering=1)
number = 0
try:
    while True:
        with open(f"{root}/closed{number}", "wb") as file: file.write(bytes([number % 255 + 1]) * (number * 37 % 20000))
        log.write(f"{number}\n")
        number += 1
except OSError:
    pass
P
again "$S" "$M" writeback_cache=on
python3 "$WORK/closed.py" "$M" "$WORK/closed.log" 2>/dev/null &
loop=$!
sleep 1.5
kill_mount "$S" "$M"
wait $loop 2>/dev/null
start_mount "$S" "$M"
check "writeback cache: everything closed is there" python3 - "$M" "$WORK/closed.log" <<'P'
import sys
numbers = [int(line) for line in open(sys.argv[2])]
assert len(numbers) > 10, f"only {len(numbers)} files"
for number in numbers:
    found = open(f"{sys.argv[1]}/closed{number}", "rb").read()
    assert found == bytes([number % 255 + 1]) * (number * 37 % 20000), f"closed{number}: {len(found)} bytes"
P
# Somebody removes the staging file, as session managers do at logout: the mount goes on in a file in the store.
again "$S" "$M"
uuid=$("$TREERING" stats "$M" --json >/dev/null && ls /dev/shm | grep -F "treering-$(od -An -tx1 -j56 -N4 "$S/superblock" | tr -d ' ')" | head -n 1)
check "staging lies in shared memory" test -n "$uuid"
rm -f "/dev/shm/$uuid"
for _ in $(seq 50); do ls "$S"/staging-* >/dev/null 2>&1 && break; sleep 0.1; done
check "staging moved into the store" bash -c 'ls "$0"/staging-*' "$S"
for number in $(seq 200); do echo "$number" >"$M/moved$number"; done
kill_mount "$S" "$M"
start_mount "$S" "$M"
equal "everything acknowledged after staging moved is there" "$(seq 200 | sort)" "$(cat "$M"/moved* | sort)"
rm -f "$M"/moved*
# Half a gigabyte on its way to the disk: what the dead process still writes must not reach what its successor writes.
flight=$((512 * 1024 * 1024))
if [ "$(df --output=avail -B1 /dev/shm | tail -n 1)" -gt $((flight * 3)) ]; then
    again "$S" "$M" staging=1G
    cat >"$WORK/flood.py" <<'P'
import os, sys
root, log, which = sys.argv[1], open(sys.argv[2], "a", buffering=1), int(sys.argv[3])
descriptor = os.open(f"{root}/flood{which}", os.O_CREAT | os.O_WRONLY)
try:
    for number in range(512):
        os.pwrite(descriptor, bytes([(number + which) % 255 + 1]) * (1 << 20), number << 20)
        log.write(f"{number}\n")
except OSError:
    pass
P
    floods=()
    for which in 1 2; do
        python3 "$WORK/flood.py" "$M" "$WORK/flood$which.log" $which 2>/dev/null &
        floods+=($!)
    done
    sleep 0.9
    kill_mount "$S" "$M"
    wait "${floods[@]}" 2>/dev/null
    start_mount "$S" "$M"
    check "512 MiB in flight: everything acknowledged is there" python3 - "$M" "$WORK" <<'P'
import sys
total = 0
for which in (1, 2):
    numbers = [int(line) for line in open(f"{sys.argv[2]}/flood{which}.log")]
    total += len(numbers)
    with open(f"{sys.argv[1]}/flood{which}", "rb") as file:
        for number in numbers:
            assert file.read(1 << 20) == bytes([(number + which) % 255 + 1]) * (1 << 20), f"flood{which}, MiB {number}"
print(total)
assert total > 20, total
P
    rm -f "$M"/flood*
fi
stop_mount "$S" "$M"
check_store "$S"
start_mount "$S" "$M"
check "everything acknowledged is there at the end" python3 "$WORK/compare.py" "$M/operations" "$WORK"/s*.log
stop_mount "$S" "$M"
finish
