# Shared by the mounted shell tests. A group is one file in Tests/Mount, run by mount-scripts/test with
#   TREERING       the program                      ENGINE         auto, ring or posix
#   LONG=1         the long tier: larger counts     TMPDIR         where everything lies
#   LEAVE_SECONDS  how long an unmount may take     CHECK_SECONDS  and a check
# It sources this file, calls `check` and friends, and ends with `finish`. Everything lives in $WORK, which is removed at the end.
# Programs that only one group needs are Tests/Mount/GROUP.py, or lie in Tests/Mount/GROUP.
# shellcheck shell=bash

: "${LONG:=0}" "${LEAVE_SECONDS:=30}" "${CHECK_SECONDS:=120}"
set -u
: "${TREERING:?path of the treering program}" "${ENGINE:=auto}"
GROUP=$(basename "$0" .sh)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/treering-$GROUP.XXXXXX")
WORK=$(realpath "$WORK")
TREERING=$(realpath "$TREERING")
# shellcheck disable=SC2034
HERE=$(realpath "$(dirname "$0")")
# Programs leave things where they stand (fio its verify states).
cd "$WORK" || exit 1
PASSED=0
FAILED=0
MOUNTS=()
STORES=()
DAEMONS=()

say() { printf '%s\n' "$*"; }
pass() { PASSED=$((PASSED + 1)); }
fail() {
    FAILED=$((FAILED + 1))
    say "FAIL $GROUP ($ENGINE): $*"
}

# check WHAT COMMAND... : the command must succeed. Its output is shown only when it does not.
check() {
    local what=$1 output code
    shift
    output=$("$@" 2>&1)
    code=$?
    if [ $code -eq 0 ]; then pass; else
        fail "$what (exit $code)"
        printf '%s\n' "$output" | head -20 | sed 's/^/    /'
    fi
    return $code
}

# refuse WHAT COMMAND... : the command must fail.
refuse() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then fail "$what: succeeded, but should not"; else pass; fi
}

# equal WHAT EXPECTED ACTUAL
equal() {
    if [ "$2" = "$3" ]; then pass; else fail "$1: expected '$2', got '$3'"; fi
}

# expect_error WHAT PATTERN COMMAND... : fails, and says something that matches the pattern.
expect_error() {
    local what=$1 pattern=$2 output code
    shift 2
    output=$("$@" 2>&1)
    code=$?
    if [ $code -eq 0 ]; then
        fail "$what: succeeded, but should not"
    elif ! printf '%s' "$output" | grep -Eq -- "$pattern"; then
        fail "$what: the message does not match '$pattern': $output"
    elif [ $code -gt 100 ]; then
        fail "$what: exit $code"
    else
        pass
    fi
}

# daemon_of STORE : the pid that holds the store's lock.
daemon_of() { head -n 1 "$1/lock" 2>/dev/null | tr -dc 0-9; }

is_mounted() { grep -q " $(realpath -m "$1") fuse.treering " /proc/mounts; }

# start_mount STORE DIR [OPTIONS] [ARGUMENTS...] : mounts with the group's engine; the test ends when that fails.
start_mount() {
    local store=$1 dir=$2 options=${3:-} pid
    # Over a dead mount this says so, and the directory is there.
    mkdir -p "$dir" 2>/dev/null
    MOUNTS+=("$dir")
    STORES+=("$store")
    shift 2
    [ $# -gt 0 ] && shift
    if ! timeout 60 "$TREERING" mount "$store" "$dir" -o "engine=$ENGINE${options:+,$options}" "$@"; then
        fail "cannot mount $store (${options:-no options})"
        finish
    fi
    pid=$(daemon_of "$store")
    [ -n "$pid" ] && DAEMONS+=("$pid")
    if ! is_mounted "$dir"; then
        fail "mount came back, but $dir is not mounted"
        finish
    fi
    pass
}

# stop_mount STORE DIR : unmounts and waits for the serving process to leave.
stop_mount() {
    local store=$1 dir=$2 pid try
    pid=$(daemon_of "$store")
    for try in 1 2 3 4 5 6 7 8 9 10; do
        fusermount3 -u "$dir" 2>"$WORK/.unmount" && break
        sleep 0.3
    done
    if is_mounted "$dir"; then fail "cannot unmount $dir: $(cat "$WORK/.unmount") (try $try)"; else pass; fi
    wait_gone "$pid" "$LEAVE_SECONDS" || fail "the serving process $pid is still there $LEAVE_SECONDS s after unmounting $dir"
}

# wait_gone PID SECONDS
wait_gone() {
    local left=$(($2 * 20))
    [ -z "$1" ] && return 0
    while kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; do
        left=$((left - 1))
        [ $left -le 0 ] && return 1
        sleep 0.05
    done
    return 0
}

# kill_mount STORE DIR : the serving process dies at once; the dead mount is taken away.
kill_mount() {
    local pid
    pid=$(daemon_of "$1")
    is_daemon "$pid" && kill -9 "$pid"
    wait_gone "$pid" 10
    fusermount3 -u -z "$2" 2>/dev/null || umount -l "$2" 2>/dev/null
}

# parent_of PID
parent_of() { awk '/^PPid:/ {print $2}' "/proc/$1/status" 2>/dev/null; }

is_daemon() { [ -n "$1" ] && tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q 'treering.* mount '; }

# remount STORE DIR [OPTIONS]
again() {
    stop_mount "$1" "$2"
    start_mount "$@"
}

# check_store STORE : `treering check` finds nothing.
check_store() { check "check of $(basename "$1")" timeout "$CHECK_SECONDS" "$TREERING" check "$1"; }

# figure STORE_OR_MOUNT NAME : a number of `treering stats --json`.
figure() { timeout 60 "$TREERING" stats "$1" --json | sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p"; }

# staging_of STORE : how the names of its staging in /dev/shm begin, nothing where it has no superblock.
staging_of() {
    local number
    number=$(od -An -tx1 -j56 -N4 "$1/superblock" 2>/dev/null | tr -d ' ')
    [ -z "$number" ] || echo "treering-$number"
}

# begin NAME COMMAND... / outcome NAME : a command beside others that take their time too; what it said, and its exit code.
begin() {
    local name=$1
    shift
    ("$@" >"$WORK/begun.$name" 2>&1; echo $? >"$WORK/code.$name.new"; mv "$WORK/code.$name.new" "$WORK/code.$name") &
}
outcome() {
    local _
    for _ in {1..1200}; do [ -e "$WORK/code.$1" ] && break; sleep 0.05; done
    cat "$WORK/begun.$1"
    return "$(cat "$WORK/code.$1")"
}

# describe DIR : one line for each name: type, mode, owner, links, size, mtime, target. Links and sizes of directories are left
# out: file systems count them differently.
describe() {
    (cd "$1" && find . -mindepth 1 \( -type d -printf '%P d %m %U:%G %T@\n' \) -o \
        -printf '%P %y %m %U:%G %n %s %T@ %l\n' | LC_ALL=C sort)
}

xattrs() { (cd "$1" && getfattr -R -h -d -m '^user\.' . 2>/dev/null | LC_ALL=C sort); }

same_tree() {
    # diff calls two fifos, sockets or devices different; their types and modes are in the description.
    diff -r --no-dereference "$1" "$2" | grep -vE 'is a (fifo|socket|character special file|block special file) while' | head -20
    diff <(describe "$1") <(describe "$2") | head -20
    diff <(xattrs "$1") <(xattrs "$2") | head -20
}

# assert_same_tree WHAT A B : contents, modes, owners, times, links and user xattrs.
assert_same_tree() {
    local differences
    differences=$(same_tree "$2" "$3" 2>&1)
    if [ -z "$differences" ]; then pass; else
        fail "$1: the trees differ"
        printf '%s\n' "$differences" | head -20 | sed 's/^/    /'
    fi
}

# Ends a test's mounts whatever state they are in.
clean_up() {
    local dir pid number
    cd / || exit 1
    for dir in "${MOUNTS[@]}"; do
        number=$(awk -v dir="$(realpath -m "$dir" 2>/dev/null || echo "$dir")" '$5 == dir {print $3}' /proc/self/mountinfo | tail -n 1)
        [ -z "$number" ] && continue
        timeout 10 fusermount3 -u "$dir" 2>/dev/null && continue
        [ -w "/sys/fs/fuse/connections/${number#*:}/abort" ] && echo 1 >"/sys/fs/fuse/connections/${number#*:}/abort"
        fusermount3 -u -z "$dir" 2>/dev/null || umount -l "$dir" 2>/dev/null
    done
    for pid in "${DAEMONS[@]}"; do
        wait_gone "$pid" 5 && continue
        is_daemon "$pid" && kill -9 "$pid" && fail "the serving process $pid had to be killed"
    done
    # What killed mounts of these stores left in shared memory, since nobody mounts them again.
    for dir in "${STORES[@]}"; do
        number=$(staging_of "$dir")
        [ -n "$number" ] && rm -f "/dev/shm/$number"-*
    done
    rm -rf --one-file-system "$WORK" 2>/dev/null
}

finish() {
    trap - EXIT
    clean_up
    say "$GROUP ($ENGINE): $PASSED passed, $FAILED failed"
    [ "$FAILED" -eq 0 ]
    exit $?
}
interrupted() {
    # Whoever read the output may be gone already: that must not keep anybody from cleaning up.
    trap '' PIPE
    fail "was interrupted or timed out"
    finish
}
trap interrupted INT TERM HUP
trap 'fail "ended early"; finish' EXIT

need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || {
            fail "$program is not installed (mount-scripts/test installs it when run as root)"
            finish
        }
    done
}
