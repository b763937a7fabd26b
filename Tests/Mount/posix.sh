#!/bin/bash
# The POSIX suite of Tests/Mount/posix on ext4, the oracle, and on mounts with the writeback cache off and on, then on a read-only
# mount. LONG=1 adds open=handle and ack=durable, and the checks that take seconds.
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=posix/oracle.sh
. "$HERE/posix/oracle.sh"
need python3
oracle

# suite WHAT DIRECTORY [ARGUMENTS...] : prints what the suite prints; its failure is the group's.
suite() {
    local what=$1 dir=$2
    shift 2
    if timeout 300 "$HERE/posix/run" "$dir" $quick "$@" >"$WORK/suite.out" 2>&1; then pass; else fail "$what (exit $?)"; fi
    sed 's/^/    /' "$WORK/suite.out"
}

# over OPTIONS : the suite on a fresh store.
over() {
    local store=$WORK/store-$1 mount=$WORK/mnt-$1
    start_mount "$store" "$mount" "allow_other,dev,suid,$1"
    say "  $1:"
    suite "the suite with $1" "$mount" "--options=$1"
    stop_mount "$store" "$mount"
    check_store "$store"
    rm -rf "$store"
}

quick=--quick
[ "$LONG" = 1 ] && quick=''
suite "the suite on ext4" "$ORACLE" --oracle
over writeback_cache=off
over writeback_cache=on
if [ "$LONG" = 1 ]; then
    over open=handle
    over ack=durable
fi

# Read-only: the tree is made first, then every call that would change it is refused.
S=$WORK/store-ro
M=$WORK/mnt-ro
start_mount "$S" "$M" allow_other,dev
check "a tree for the read-only mount" "$HERE/posix/run" "$M" --prepare
again "$S" "$M" ro,allow_other,dev
say "  ro:"
suite "the suite on a read-only mount" "$M" --read-only
stop_mount "$S" "$M"
check_store "$S"
end_oracle
finish
