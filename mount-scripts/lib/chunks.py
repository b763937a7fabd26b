"""The chunks file of the long tier: one line for each finished chunk and unit, and what all of them add up to.

The file has one header line, then lines of nine fields between tabs:

    kind    first    seeds    count    unit    seconds    commit    result    note

`kind` is a name of Tests/Long, with its engine (`kill.ring`) where it runs on mounts. The chunk ran the seeds from `first` to
`first + seeds - 1`. `result` is `passed`, or says how it failed; of a chunk that failed nothing counts. Lines are only ever added, so
totals of earlier versions stay readable.
"""
import os
import sys
from dataclasses import astuple, dataclass

from figures import grouped

HEADER = "#kind\tfirst\tseeds\tcount\tunit\tseconds\tcommit\tresult\tnote\n"
PASSED = "passed"


@dataclass
class Chunk:
    """One line of the file."""

    kind: str
    first: int
    seeds: int
    count: int
    unit: str
    seconds: int
    commit: str
    result: str
    note: str = ""

    @property
    def has_passed(self):
        """Whether it counts."""
        return self.result == PASSED

    @classmethod
    def parse(cls, line):
        """The chunk of a line without its end; ValueError where it is none."""
        kind, first, seeds, count, unit, seconds, commit, result, note = (line.split("\t") + [""])[:9]
        return cls(kind, int(first), int(seeds), int(count), unit, int(seconds), commit, result, note)


class ChunksFile:
    """The file in a folder; it is made when it is not there. Several runs may add to it."""

    def __init__(self, path):
        self.path = path
        if not os.path.exists(path):
            with open(path, "w") as file:
                file.write(HEADER)

    def read(self):
        """All chunks, in the order in which they ended. Of a line that is none, half of one say, it is told; the others count."""
        found = []
        with open(self.path, errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("#"):
                    continue
                try:
                    found.append(Chunk.parse(line.rstrip("\n")))
                except ValueError:
                    print(f"{self.path}:{number}: this line is no chunk, and does not count", file=sys.stderr)
        return found

    def add(self, chunks):
        """Remembers chunks: in one write, so that lines of two runs do not mix."""
        text = "".join("\t".join(str(field) for field in astuple(chunk)) + "\n" for chunk in chunks)
        with open(self.path, "ab", buffering=0) as file:
            file.write(text.encode())

    def counted(self, kind, unit):
        """What the passed chunks of a kind add up to in a unit."""
        return sum(chunk.count for chunk in self.read() if chunk.kind == kind and chunk.unit == unit and chunk.has_passed)

    def next_seed(self, kind):
        """The first seed that no chunk of a kind has had, passed or not."""
        return max((chunk.first + chunk.seeds for chunk in self.read() if chunk.kind == kind), default=1)


def totals(chunks):
    """What chunks add up to, as docs/runs.md has it: a table, the figures of single chunks, and the chunks that failed."""
    lines = ["| what | passed | failed chunks | hours | seeds | commits |", "|---|---|---|---|---|---|"]
    rows = {}
    for chunk in chunks:
        rows.setdefault((chunk.kind, chunk.unit), []).append(chunk)
    for (kind, unit), row in rows.items():
        count = sum(chunk.count for chunk in row if chunk.has_passed)
        failed = sum(not chunk.has_passed for chunk in row)
        hours = sum(chunk.seconds for chunk in row) / 3600
        low, high = min(chunk.first for chunk in row), max(chunk.first + chunk.seeds - 1 for chunk in row)
        commits = " ".join(dict.fromkeys(chunk.commit for chunk in row))
        lines.append(f"| {kind} | {grouped(count)} {unit} | {failed} | {hours:.1f} | {low}–{high} | {commits} |")
    lines += section("Figures of single chunks", [(chunk, chunk.note) for chunk in chunks if chunk.note])
    lines += section("Failed chunks", [(chunk, chunk.result) for chunk in chunks if not chunk.has_passed])
    return "\n".join(lines)


def section(title, entries):
    """The lines of a list below a title, where there is anything in it."""
    if not entries:
        return []
    return ["", "", f"{title}:", ""] + [f"- {chunk.kind}, seed {chunk.first}, commit {chunk.commit}: {text}" for chunk, text in entries]
