#!/bin/bash
# The same random system calls on ext4 and on a mount: every answer and the trees are compared (Tests/Mount/posix/differential).
# 20,000 operations; TREERING_DIFFERENTIAL_RUNS=5 makes as many seeds of 20,000. LONG=1: seeds of 100,000 operations for an hour each
# with the writeback cache off and on, or until TREERING_DIFFERENTIAL_OPERATIONS (5,000,000 each); what is done is recorded in
# TREERING_DIFFERENTIAL_TOTALS (a directory) and not done again. TREERING_DIFFERENTIAL_SEED: the first seed (1);
# TREERING_DIFFERENTIAL_SECONDS: begin no seed after so many seconds (1,500, with LONG=1).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=posix/oracle.sh
. "$HERE/posix/oracle.sh"
need python3
oracle
seed=${TREERING_DIFFERENTIAL_SEED:-1}
runs=${TREERING_DIFFERENTIAL_RUNS:-1}

# differ OPTIONS SEED RUNS ARGUMENTS... : on a fresh store, which must be clean afterwards.
differ() {
    local options=$1 from=$2 count=$3 store=$WORK/store-$1 mount=$WORK/mnt-$1
    shift 3
    # With the writeback cache the kernel stamps by its coarse clock: the trees are compared, not which times each call moved.
    case $options in *writeback_cache=on*) set -- "$@" --times '' ;; esac
    start_mount "$store" "$mount" "allow_other,dev,suid,$options"
    if "$HERE/posix/differential" "$ORACLE" "$mount" --seed "$from" --runs "$count" --label "$ENGINE,$options" "$@" >"$WORK/out" 2>&1; then pass; else
        fail "the differential run with $options"
    fi
    sed "s/^/    $options: /" "$WORK/out"
    stop_mount "$store" "$mount"
    check_store "$store"
    rm -rf "$store"
}

if [ "$LONG" = 1 ]; then
    totals=${TREERING_DIFFERENTIAL_TOTALS:-$WORK}
    mkdir -p "$totals"
    count=$((${TREERING_DIFFERENTIAL_OPERATIONS:-5000000} / 100000))
    for cache in off on; do
        differ writeback_cache=$cache "$seed" "$count" --operations 100000 --interval 10000 --seconds "${TREERING_DIFFERENTIAL_SECONDS:-1500}" \
            --totals "$totals/differential-$ENGINE-$cache.jsonl"
    done
else
    differ writeback_cache=off "$seed" "$runs"
    differ writeback_cache=on "$((seed + 1000))" "$runs" --operations $((runs > 1 ? 20000 : 5000))
fi
end_oracle
finish
