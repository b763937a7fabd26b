"""Adds up what the tests of a chunk say they have done: counts.py KIND LOG. Prints "count N UNIT" for each unit of the kind."""
import re
import sys

# For each kind what a line of its tests looks like, and the unit of the number in it.
PATTERNS = {
    # "mixed operations: 8 runs: 2000 crash states, 3100 of a second crash, 248 kills, ..."
    "crash": [
        (r"(\d+) crash states", "crash states"), (r"(\d+) of a second crash", "states of a second crash"), (r"(\d+) kills", "simulated kills"),
    ],
    # "writeback_cache=off: differential: seeds 1 to 5: 50000 operations in 12.3 s, ..."
    "differential": [(r"differential: .*: (\d+) operations in", "operations")],
    # "faults at 93 calls: (runs: 465, ...", "wrong bits in 28 reads: ..."
    "faults": [(r"runs: (\d+)", "runs with a fault"), (r"wrong bits in (\d+)", "runs with a fault")],
    # "hostile stores: 2000 from seed 1: ..."
    "hostile": [(r"^hostile stores: (\d+) from seed ", "hostile stores")],
    # "random operations, seed 1: 50000 operations; comparison 101, kill 70, oracle 44, power cut 120, ..."
    "random": [
        (r"^random operations, seed \d+: (\d+) operations", "operations"), (r"^random operations, .*\bcut (\d+)", "power cuts"),
        (r"^random operations, .*\bkill (\d+)", "simulated kills"),
    ],
}


def counts(kind, lines):
    """The sum for each unit of a kind, by unit."""
    found = {unit: 0 for _, unit in PATTERNS.get(kind, [])}
    for line in lines:
        for pattern, unit in PATTERNS.get(kind, []):
            match = re.search(pattern, line)
            if match:
                found[unit] += int(match[1])
    return found


if __name__ == "__main__":
    with open(sys.argv[2], errors="replace") as file:
        for unit, number in counts(sys.argv[1], file).items():
            print(f"count {number} {unit}")
