#!/bin/bash
# Stores on other hosts: ext4, xfs, btrfs, tmpfs, overlayfs, a btrfs with a quota, and hosts that stay full. A store keeps to its capacity, a host
# that is full is a full disk, and what it holds can be mounted afterwards. What this machine cannot make is left out.
# long
# once
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
[ "$(id -u)" = 0 ] || { say "    only root can make hosts"; finish; }
HOSTS=()
HOST=''
# At the end hosts go after the mounts on them.
finish_hosts() {
    local host
    trap - EXIT
    cd / || exit 1
    for dir in "${MOUNTS[@]}"; do is_mounted "$dir" && fusermount3 -u -z "$dir" 2>/dev/null; done
    for pid in "${DAEMONS[@]}"; do wait_gone "$pid" 10; done
    for host in "${HOSTS[@]}"; do umount "$host" 2>/dev/null || umount -l "$host" 2>/dev/null; done
    finish
}
trap 'fail "ended early"; finish_hosts' EXIT

# host NAME BYTES TYPE [MKFS OPTIONS...] : a file system in a file, at $HOST.
host() {
    local name=$1 size=$2 type=$3
    shift 3
    HOST=$WORK/$name
    mkdir -p "$HOST"
    command -v "mkfs.$type" >/dev/null || { say "    no mkfs.$type: $name is left out"; return 1; }
    truncate -s "$size" "$WORK/$name.img"
    "mkfs.$type" -q "$@" "$WORK/$name.img" >/dev/null 2>&1 || { say "    no $type can be made: $name is left out"; return 1; }
    mount -o loop${HOST_OPTIONS:+,$HOST_OPTIONS} "$WORK/$name.img" "$HOST" 2>/dev/null ||
        { say "    $type cannot be mounted here: $name is left out"; return 1; }
    HOSTS+=("$HOST")
}
used() { df -m --output=used "$HOST" | tail -n 1 | tr -dc 0-9; }
# Much more is written than the store has room for; it never takes more of the host than its capacity and what the host itself needs.
keeps_to_capacity() { # NAME [SLACK MIB]
    local before store=$HOST/store mount=$WORK/mnt-$1
    before=$(used)
    mkdir -p "$mount"
    start_mount "$store" "$mount" capacity=200M
    check "$1: overwriting" timeout 100 env PYTHONHASHSEED=0 python3 "$HERE/hosts.py" "$mount" - 8
    sync -f "$HOST"
    local took=$(($(used) - before))
    say "    $1: 200 MiB of capacity, $took MiB of the host"
    equal "$1: no more of the host than the capacity" yes "$([ $took -le $((200 + ${2:-10})) ] && echo yes || echo $took)"
    equal "$1: read-only" 0 "$("$TREERING" stats "$mount" | awk '$1 == "read_only" {print $2}')"
    kill_mount "$store" "$mount"
    start_mount "$store" "$mount"
    check "$1: writing after a kill" timeout 60 env PYTHONHASHSEED=0 python3 "$HERE/hosts.py" "$mount" - 1
    stop_mount "$store" "$mount"
    check_store "$store"
}
# Removing works on a full host. Where a quota is used up btrfs may refuse even what only overwrites: then it works when there is room again.
remove_big() { # NAME WHAT MOUNT
    if [ "$1" = quota ] && ! timeout 60 rm "$3/big" 2>"$WORK/said"; then
        check "$1: why $2 does not work" grep -q 'No space left' "$WORK/said"
        raise_quota
        # shellcheck disable=SC2016
        check "$1: $2 when there is room" timeout 60 bash -c 'until rm "$0/big"; do sleep 0.5; done' "$3"
    elif [ "$1" != quota ]; then
        check "$1: $2" timeout 60 rm "$3/big"
    fi
}
# The host is full before the store is: writing fails as on a full disk, removing works, and then writing again.
full_host() { # NAME
    local store=$HOST/store mount=$WORK/mnt-$1-full
    mkdir -p "$mount"
    start_mount "$store" "$mount" "${2:-capacity=4G},commit=1"
    echo kept >"$mount/kept"
    "$TREERING" sync "$mount" >/dev/null
    expect_error "$1: filling the host" 'No space left|Disk quota' timeout 100 dd if=/dev/urandom of="$mount/big" bs=1M count=3000 conv=fsync
    sleep 2
    equal "$1: read-only when full" 0 "$("$TREERING" stats "$mount" | awk '$1 == "read_only" {print $2}')"
    remove_big "$1" removing "$mount"
    check "$1: clean" timeout 60 "$TREERING" clean "$mount"
    check "$1: writing again" timeout 60 dd if=/dev/urandom of="$mount/again" bs=1M count=4 conv=fsync
    # Full once more, and killed so: it can be mounted.
    timeout 100 dd if=/dev/urandom of="$mount/big" bs=1M count=3000 2>/dev/null
    kill_mount "$store" "$mount"
    start_mount "$store" "$mount"
    equal "$1: what was there" kept "$(cat "$mount/kept")"
    remove_big "$1" "removing after a kill" "$mount"
    stop_mount "$store" "$mount"
    check_store "$store"
    rm -rf "$store"
}
both() { keeps_to_capacity "$1" "${2:-10}"; rm -rf "$HOST/store"; full_host "$1"; umount "$HOST" 2>/dev/null; rm -f "$WORK/$1.img"; }

host ext4 420M ext4 && both ext4
host xfs 480M xfs && both xfs
host btrfs 600M btrfs && both btrfs 20
# A store made when files were still copied on write, or on a host that was told to copy: what is recycled there goes back to the host.
host cow 600M btrfs && {
    mkdir "$HOST/store"
    check "cow: format" "$TREERING" format "$HOST/store" --capacity 200M
    for file in "$HOST/store/segments"/*.seg; do
        cp --reflink=never "$file" "$file.copy" && mv "$file.copy" "$file"
    done
    keeps_to_capacity cow 20
    [ -z "$(lsattr "$HOST"/store/segments/*.seg 2>/dev/null | awk '$1 !~ /C/')" ] && pass || say "    cow: some segments are still copied on write"
    umount "$HOST"
    rm -f "$WORK/cow.img"
}
HOST=$WORK/tmpfs
mkdir "$HOST"
mount -t tmpfs -o size=280M none "$HOST" && { HOSTS+=("$HOST"); both tmpfs; }
host lower 420M ext4 && {
    mkdir "$HOST/upper" "$HOST/work" "$HOST/lower" "$WORK/overlay"
    if mount -t overlay -o "lowerdir=$HOST/lower,upperdir=$HOST/upper,workdir=$HOST/work" none "$WORK/overlay" 2>/dev/null; then
        HOSTS=("$WORK/overlay" "${HOSTS[@]}")
        HOST=$WORK/overlay
        both overlay
    else say "    overlayfs cannot be mounted here: it is left out"; fi
}
# The host has no room for as long as it likes: reads go on, who writes is told, nothing is lost, and all goes on when there is room again.
stays_full() { # NAME MAKE-FULL MAKE-ROOM
    local store=$HOST/store mount=$WORK/mnt-$1-stays try
    mkdir -p "$mount"
    start_mount "$store" "$mount" capacity=200M,commit=1
    head -c 30000000 /dev/urandom >"$mount/synced"
    "$TREERING" sync "$mount" >/dev/null
    cp "$mount/synced" "$WORK/synced"
    $2 >"$WORK/made-full" 2>&1
    expect_error "$1: writing" 'No space left' timeout 60 dd if=/dev/urandom of="$mount/more" bs=1M count=300 conv=fsync
    check "$1: reading" timeout 20 cmp "$mount/synced" "$WORK/synced"
    check "$1: looking" timeout 20 ls -lR "$mount"
    equal "$1: read-only" 0 "$(timeout 20 "$TREERING" stats "$mount" | awk '$1 == "read_only" {print $2}')"
    timeout 60 "$TREERING" clean "$mount" >/dev/null 2>&1
    equal "$1: cleaning comes to an end" yes "$([ $? -ne 124 ] && echo yes)"
    $3 >"$WORK/made-room" 2>&1
    for try in $(seq 40); do
        timeout 20 dd if=/dev/urandom of="$mount/again" bs=1M count=4 conv=fsync 2>/dev/null && break
        sleep 0.5
    done
    equal "$1: writing when there is room (try $try)" 4194304 "$(stat -c %s "$mount/again")"
    check "$1: what was there" timeout 20 cmp "$mount/synced" "$WORK/synced"
    cp "$mount/again" "$WORK/again"
    # Full when it is killed: where not even the superblock can be written, reading must do until there is room.
    $2 >"$WORK/made-full" 2>&1
    timeout 60 dd if=/dev/urandom of="$mount/more" bs=1M count=300 conv=fsync 2>/dev/null
    kill_mount "$store" "$mount"
    if ! timeout 60 "$TREERING" mount "$store" "$mount" -o "engine=$ENGINE" >"$WORK/said" 2>&1; then
        check "$1: why it cannot be mounted" grep -q 'No space left' "$WORK/said"
        start_mount "$store" "$mount" ro
    fi
    check "$1: what was there, mounted when full" timeout 20 cmp "$mount/synced" "$WORK/synced"
    check "$1: and what was synced later" timeout 20 cmp "$mount/again" "$WORK/again"
    $3 >"$WORK/made-room" 2>&1
    again "$store" "$mount"
    check "$1: writing at last" timeout 60 dd if=/dev/urandom of="$mount/more" bs=1M count=4 conv=fsync
    stop_mount "$store" "$mount"
    check_store "$store"
    rm -rf "$store"
}
fill_host() {
    dd if=/dev/zero of="$HOST/other" bs=1M
    dd if=/dev/zero of="$HOST/other2" bs=4k
    sync -f "$HOST"
}
empty_host() {
    rm -f "$HOST"/other*
    sync -f "$HOST"
}
snapshot_and_fill() {
    btrfs subvolume snapshot -r "$HOST" "$HOST/snapshot"
    fill_host
}
empty_of_snapshot() {
    btrfs subvolume delete -C "$HOST/snapshot"
    empty_host
    btrfs subvolume sync "$HOST"
}
lower_quota() { btrfs qgroup limit 20M 0/256 "${HOST%/user}"; }
raise_quota() { btrfs qgroup limit 500M 0/256 "${HOST%/user}"; }
host filled 420M ext4 && stays_full filled fill_host empty_host
host snapshot 600M btrfs && stays_full snapshot snapshot_and_fill empty_of_snapshot
# A quota that holds for root as well: what is used up by writing, and one that becomes smaller than what is used.
host quota 600M btrfs && {
    # A quota that is used up cannot be raised from within: so the store is in a subvolume, whose number is the first that there is.
    if btrfs quota enable "$HOST" >/dev/null 2>&1 && btrfs subvolume create "$HOST/user" >/dev/null 2>&1 &&
        HOST=$HOST/user && btrfs qgroup limit 150M "$HOST" >/dev/null 2>&1; then
        full_host quota capacity=400M
        raise_quota
        stays_full quota lower_quota raise_quota
    else say "    quotas cannot be set here: they are left out"; fi
}
finish_hosts
