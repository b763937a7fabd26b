#!/bin/bash
# A hundred bits of a real store are flipped, anywhere in it. Before a repair and after it every block of every file is what it was or
# gives EIO; after it exactly what the repair listed gives EIO, and another check, of all data, is clean. What can be read is exported
# without FUSE at each stage. TREERING_SEED: the bits (drawn anew unless told).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 setfattr
S=$WORK/store
M=$WORK/mnt
seed=${TREERING_SEED:-$RANDOM}
say "   seed $seed"

mkdir "$WORK/tree"
tools() { timeout 60 python3 "$HERE/damage.py" "$@"; }

tools make "$WORK/tree" "$seed"
check "format" "$TREERING" format "$S" --capacity 256M
start_mount "$S" "$M"
cp -a "$WORK/tree/." "$M/"
# Some of it changes afterwards, so that segments hold what is dead.
for number in 1 101 201 301; do
    rm "$M/d$((number % 23))/e$((number % 5))/f$number"
    find "$M" -name "f$((number + 1))" -exec sh -c 'echo changed >"$1"' _ {} \;
done
setfattr -n user.colour -v green "$M/d1"
rm -rf "$WORK/tree"
cp -a "$M" "$WORK/tree"
stop_mount "$S" "$M"
cp -a "$S" "$WORK/whole"

# Whole: an export is the tree.
check "export" "$TREERING" export "$S" "$WORK/exported"
assert_same_tree "exported" "$WORK/tree" "$WORK/exported"
refuse "export into what is not empty" "$TREERING" export "$S" "$WORK/exported"
rm -rf "$WORK/exported"

# Batches only: a hundred flips in segments behind their headers, without which a store is not mounted; the index is whole, so that
# every file can be opened.
tools flip "$S/segments" 100 "$seed" 4096
start_mount "$S" "$M"
tools compare "$WORK/tree" "$M" >"$WORK/out" || fail "bytes that never were: $(cat "$WORK/out")"
cat "$WORK/out"
stop_mount "$S" "$M"
"$TREERING" export "$S" "$WORK/exported" >"$WORK/out" 2>&1
equal "an export of a damaged store says so" 4 $?
rm -rf "$WORK/exported"
"$TREERING" check "$S" --data >"$WORK/out" 2>&1
equal "check finds the damage" 4 $?
"$TREERING" check "$S" --repair >"$WORK/repair" 2>&1
equal "repair corrects" 1 $?
"$TREERING" check "$S" --data >"$WORK/out" 2>&1
equal "a second check is clean" 0 $?
start_mount "$S" "$M"
tools compare "$WORK/tree" "$M" "$WORK/repair" >"$WORK/out" || fail "after the repair: $(cat "$WORK/out")"
cat "$WORK/out"
stop_mount "$S" "$M"
check "an export of lost blocks ends" bash -c '"$0" export "$1" "$2" >/dev/null 2>&1; [ $? = 4 ] || [ $? = 0 ]' "$TREERING" "$S" "$WORK/exported"
rm -rf "$WORK/exported" "$S"

# Anywhere: index, superblock, headers.
cp -a "$WORK/whole" "$S"
tools flip "$S" 100 $((seed + 1)) 0
"$TREERING" check "$S" >"$WORK/out" 2>&1
equal "check finds the damage" 4 $?
"$TREERING" check "$S" --repair >"$WORK/repair" 2>&1
equal "repair corrects" 1 $?
"$TREERING" check "$S" --data >"$WORK/out" 2>&1
equal "a second check is clean" 0 $?
start_mount "$S" "$M"
check "the mount can be walked" find "$M" -type f -name 'f*'
echo new >"$M/new"
stop_mount "$S" "$M"
check_store "$S"
rm -rf "$S"

# Neither slot of the superblock is whole, or the file is gone, and the index with it: nothing is mounted, everything comes out, and a
# repair makes a new one.
lose() {
    case $2 in
    zeros) dd if=/dev/zero of="$1/superblock" bs=4096 count=17 conv=notrunc status=none ;;
    random) dd if=/dev/urandom of="$1/superblock" bs=4096 count=17 conv=notrunc status=none ;;
    truncated) truncate -s 1000 "$1/superblock" ;;
    missing) rm "$1/superblock" ;;
    index) rm "$1/superblock" "$1/index" ;;
    esac
}
rm -rf "$WORK/tree"
for loss in zeros random truncated missing index; do
    cp -a "$WORK/whole" "$S"
    if [ ! -e "$WORK/tree" ]; then
        start_mount "$S" "$M"
        cp -a "$M" "$WORK/tree"
        stop_mount "$S" "$M"
    fi
    lose "$S" $loss
    before=$(cd "$S" && find . -type f ! -name lock -exec md5sum {} + | sort)
    expect_error "$loss: a mount names the repair" 'check --repair' timeout 60 "$TREERING" mount "$S" "$M" -o "engine=$ENGINE"
    "$TREERING" check "$S" >"$WORK/out" 2>&1
    equal "$loss: check finds it" 4 $?
    check "$loss: and says what a repair would do" grep -q 'superblock: .*; a repair makes a new one' "$WORK/out"
    check "$loss: everything is exported" "$TREERING" export "$S" "$WORK/exported"
    assert_same_tree "$loss: exported" "$WORK/tree" "$WORK/exported"
    rm -rf "$WORK/exported"
    equal "$loss: nothing was changed" "$before" "$(cd "$S" && find . -type f ! -name lock -exec md5sum {} + | sort)"
    "$TREERING" check "$S" --repair >"$WORK/repair" 2>&1
    equal "$loss: repair corrects" 1 $?
    "$TREERING" check "$S" --data >"$WORK/out" 2>&1
    equal "$loss: a second check is clean" 0 $?
    start_mount "$S" "$M"
    assert_same_tree "$loss: mounted" "$WORK/tree" "$M"
    equal "$loss: names are found" changed "$(find "$M" -name f2 -exec cat {} +)"
    # Killed with what it acknowledged in staging only.
    if [ $loss = random ] || [ $loss = index ]; then
        again "$S" "$M" commit=300
        for number in $(seq 200); do echo "$number" >"$M/staged$number"; done
        kill_mount "$S" "$M"
        lose "$S" $loss
        "$TREERING" export "$S" "$WORK/exported" >"$WORK/out" 2>&1
        [ $loss = random ] && equal "an export has what staging holds" "$(seq 200 | sort)" "$(cat "$WORK"/exported/staged* | sort)"
        rm -rf "$WORK/exported"
        "$TREERING" check "$S" --repair >"$WORK/repair" 2>&1
        equal "$loss: repair after a kill" 1 $?
        start_mount "$S" "$M"
        equal "$loss: everything acknowledged is there" "$(seq 200 | sort)" "$(cat "$M"/staged* | sort)"
    fi
    stop_mount "$S" "$M"
    check_store "$S"
    rm -rf "$S"
done

# Segments of two stores are nobody's.
cp -a "$WORK/whole" "$S"
check "another store" "$TREERING" format "$WORK/other" --capacity 256M
cp "$WORK/other/segments/00000000.seg" "$S/segments/0000003f.seg"
lose "$S" zeros
before=$(cd "$S" && find . -type f ! -name lock -exec md5sum {} + | sort)
"$TREERING" check "$S" --repair >"$WORK/repair" 2>&1
equal "segments of two stores are left alone" 4 $?
check "and it says why" grep -q 'belong to different stores' "$WORK/repair"
equal "as they are" "$before" "$(cd "$S" && find . -type f ! -name lock -exec md5sum {} + | sort)"
finish
