#!/bin/bash
# stress-ng's file-system stressors, two workers of each: a few for a second in `test`; all that ext4 here survives, ten seconds each,
# with LONG=1. No failure, no kernel warning, the store clean afterwards.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need stress-ng
S=$WORK/store
M=$WORK/mnt

# The stressors that make files below --temp-path. Those of the class that work on something else (pipes, /proc, devices, mounts,
# processes' priorities) say nothing about a file system and are left out.
stressors='access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fanotify fcntl fiemap file-ioctl
filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify io iomix lease link locka lockf lockofd mknod open rename seek
symlink sync-file touch utime verity xattr aio aiol io-uring readahead revio mmap mmapfork msync sendfile splice'
seconds=10
if [ "$LONG" != 1 ]; then
    stressors='dentry dirmany fallocate hdd iomix lockf rename seek'
    seconds=1
fi

# stress DIRECTORY STRESSOR : its exit code; the output lies in $WORK/out. 0 success, 3 nothing was done, 4 not implemented here.
stress() {
    mkdir -p "$1/$2"
    timeout --kill-after=10 $((seconds + 60)) stress-ng "--$2" 2 --timeout "${seconds}s" --temp-path "$1/$2" --verify \
        --hdd-bytes 64M --iomix-bytes 64M \
        --fallocate-bytes 64M --seek-size 64M --readahead-bytes 64M --revio-bytes 64M --copy-file-bytes 128M --mmap-bytes 64M --mmap-file \
        --sync-file-bytes 64M --splice-bytes 1M --no-rand-seed >"$WORK/out" 2>&1
    local code=$?
    rm -rf "${1:?}/$2"
    return $code
}

# The kernel's log holds so many lines only: old ones may be gone at the end.
warnings() { dmesg 2>/dev/null | grep -E 'WARNING:|BUG:|Oops|blocked for more than|KASAN' | sort; }

before=$(warnings)
start_mount "$S" "$M" "allow_other,dev,suid"
for stressor in $stressors; do
    stress "$M" "$stressor"
    code=$?
    if [ $code -eq 0 ]; then
        pass
        [ "$LONG" = 1 ] && say "    $stressor: passed"
        continue
    fi
    cp "$WORK/out" "$WORK/out.treering"
    # Whether it is the file system that fails, ext4 tells (the directory of the test, whatever lies under it).
    stress "$WORK" "$stressor"
    native=$?
    if [ $native -eq 0 ] && [ $code -ne 4 ] && [ $code -ne 3 ]; then
        fail "$stressor (exit $code)"
        grep -E 'fail|error|warn' "$WORK/out.treering" | head -5 | sed 's/^/    /'
    elif [ $native -eq 0 ]; then
        missing=$(grep -m 1 -iE 'skip|not (implemented|supported)' "$WORK/out.treering" | sed 's/^stress-ng: //')
        say "    $stressor: not counted: it found something missing here (exit $code), not on the native directory: $missing"
    else
        say "    $stressor: not counted: exit $native on the native directory too"
    fi
    is_mounted "$M" || break
done
equal "new kernel warnings" "" "$(comm -13 <(echo "$before") <(warnings))"
check "the mount still answers" stat "$M"
equal "what stressors left behind" "" "$(ls "$M")"
stop_mount "$S" "$M"
check_store "$S"
finish
