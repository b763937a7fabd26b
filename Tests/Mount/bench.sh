#!/bin/bash
# Every job of mount-scripts/bench, for a moment: what no test runs rots. The numbers are not looked at.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need fio git
if timeout 200 "$HERE/../../mount-scripts/bench" --quick --json --systems "$ENGINE" "$WORK" >"$WORK/json" 2>"$WORK/out"; then pass; else
    fail "bench --quick"
    tail -n 20 "$WORK/out"
fi
check "each job has a result" python3 - "$WORK/json" "$ENGINE" <<'P'
import json, sys
jobs = json.load(open(sys.argv[1]))["jobs"]
assert len(jobs) == 16, len(jobs)
for job in jobs: assert job["systems"][sys.argv[2]]["median"] > 0, job
P
finish
