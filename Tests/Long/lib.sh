# Shared by the kinds of the long tier, which source it. mount-scripts/test-long runs a kind from the checkout's root with
#   SEED   the first seed        SEEDS  how many        ENGINE  of a kind on mounts        TMPDIR  where everything lies
# and adds up its lines "count N UNIT". "note WORDS" is remembered with the chunk. The comment at a kind's head says:
#   unit     what is counted (a file without it is no kind)        goal     how many are wanted
#   seeds    how many seeds a chunk has                            seconds  how long it may take
#   engines  that it runs on mounts, and on which engines
# shellcheck shell=bash
set -u -o pipefail
# Told to end, it waits until what it runs has cleaned up.
trap : INT TERM HUP
KIND=$(basename "$0" .sh)
# shellcheck disable=SC2034
LOG=$TMPDIR/$KIND.log

# counted COMMAND... : runs it, what it says in $LOG too, and counts what that tells; its exit code.
counted() {
    local code
    "$@" 2>&1 | (trap '' INT TERM HUP && exec tee "$LOG")
    code=$?
    python3 Tests/Long/counts.py "$KIND" "$LOG"
    return $code
}

# simulated FILTER : runs tests of the simulation, which mount-scripts/test-long has built.
simulated() {
    counted swift test -c release -Xswiftc -enable-testing -Xswiftc -DSIMULATION --scratch-path .build-tests --skip-build --filter "$1"
}

# mounted GROUP : runs a group of Tests/Mount.
mounted() { counted bash "Tests/Mount/$1.sh"; }
