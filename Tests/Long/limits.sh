#!/bin/bash
# 20,000 segments on a mount, far more than descriptors; Tests/Mount/limits.sh does it.
# unit: segments
# goal: 40000
# engines: ring posix
# seeds: 1
# seconds: 7200
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
export LONG=1
mounted limits
