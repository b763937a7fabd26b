#!/bin/bash
# Mounted groups served by a program that the thread sanitizer watches, and by one that the address sanitizer watches. Any report fails.
# TREERING_SANITIZED_GROUPS and TREERING_SANITIZERS: only these groups and sanitizers.
# unit: groups under a sanitizer
# goal: 12
# engines: ring posix
# seeds: 1
# seconds: 5400
set -u
root=$(readlink -f "$(dirname "$0")/../..")
cd "$root" || exit 1
# What they report goes to files; the programs go on, and exit as they would. The notify helper cannot wait for its thread, which may be in the
# kernel for ever: threads that were not joined are no fault.
export ASAN_OPTIONS="log_path=$TMPDIR/report.address:exitcode=99:verify_asan_link_order=0:detect_leaks=0"
export TSAN_OPTIONS="log_path=$TMPDIR/report.thread:exitcode=0:halt_on_error=0:die_after_fork=0:report_thread_leaks=0"
# A watched program is several times slower.
export LEAVE_SECONDS=180 CHECK_SECONDS=600 TREERING_KILLS=2
groups=${TREERING_SANITIZED_GROUPS:-basic data meta errors ends takeover}
failed=0
for sanitizer in ${TREERING_SANITIZERS:-thread address}; do
    # The thread sanitizer does not see what Synchronization.Mutex does: TREERING_TSAN has it see every lock.
    more=()
    [ "$sanitizer" = thread ] && more=(-Xswiftc -DTREERING_TSAN)
    swift build -c release "--sanitize=$sanitizer" --scratch-path ".build-$sanitizer" --product treering "${more[@]}" >"$TMPDIR/build" 2>&1 ||
        { tail -n 20 "$TMPDIR/build"; exit 1; }
    for group in $groups; do
        if TREERING=$root/.build-$sanitizer/release/treering timeout --kill-after=30 1500 bash "Tests/Mount/$group.sh" >"$TMPDIR/out" 2>&1; then
            echo "count 1 groups under a sanitizer"
        else
            failed=1
            echo "$group with the $sanitizer sanitizer:"
            tail -n 30 "$TMPDIR/out"
        fi
        for report in "$TMPDIR"/report.*; do
            [ -s "$report" ] || continue
            failed=1
            echo "reports of the $sanitizer sanitizer in $group:"
            head -n 120 "$report"
        done
        rm -f "$TMPDIR"/report.*
    done
done
exit $failed
