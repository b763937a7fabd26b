"""The numbers that scripts print: what chunks add up to, what their logs count, medians and ratios of the benchmark."""
import json
import os
import sys
import tempfile
import types
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "mount-scripts/lib"), os.path.join(ROOT, "Tests/Long")]
import bench_report  # noqa: E402
import chunks  # noqa: E402
import counts  # noqa: E402
import figures  # noqa: E402

# Lines as the long tier has always written them.
RECORDED = (
    "#kind\tfirst\tseeds\tcount\tunit\tseconds\tcommit\tresult\tnote\n"
    "kill.ring\t1\t50\t1234567\tkills\t3600\tabc\tpassed\t\n"
    "kill.ring\t1\t50\t99\toperations\t3600\tabc\tpassed\t\n"
    "kill.ring\t51\t50\t0\tkills\t77\tdef+\tfailed (1)\t\n"
    "crash\t7\t1\t20000\tcrash states\t500\tabc\tpassed\tp50 3 us; p99 9 us\n"
)
TOTALS = """\
| what | passed | failed chunks | hours | seeds | commits |
|---|---|---|---|---|---|
| kill.ring | 1,234,567 kills | 1 | 1.0 | 1–100 | abc def+ |
| kill.ring | 99 operations | 0 | 1.0 | 1–50 | abc |
| crash | 20,000 crash states | 0 | 0.1 | 7–7 | abc |


Figures of single chunks:

- crash, seed 7, commit abc: p50 3 us; p99 9 us


Failed chunks:

- kill.ring, seed 51, commit def+: failed (1)"""


class ChunksTests(unittest.TestCase):
    """The chunks file."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "chunks")

    def tearDown(self):
        self.directory.cleanup()

    def test_recorded_totals_stay_readable(self):
        with open(self.path, "w") as file:
            file.write(RECORDED)
        book = chunks.ChunksFile(self.path)
        self.assertEqual(chunks.totals(book.read()), TOTALS)
        self.assertEqual(book.counted("kill.ring", "kills"), 1_234_567)
        self.assertEqual(book.next_seed("kill.ring"), 101)
        self.assertEqual(book.next_seed("random"), 1)

    def test_half_a_line_is_told_and_does_not_count(self):
        with open(self.path, "w") as file:
            file.write(RECORDED + "kill.ring\t101\t5")
        with redirect_stderr(StringIO()) as errors:
            self.assertEqual(len(chunks.ChunksFile(self.path).read()), 4)
        self.assertIn("chunks:6: this line is no chunk", errors.getvalue())

    def test_what_is_added_looks_like_what_was_recorded(self):
        book = chunks.ChunksFile(self.path)
        with open(self.path) as file:
            self.assertEqual(file.read(), RECORDED.splitlines(True)[0])
        for line in RECORDED.splitlines()[1:]:
            book.add([chunks.Chunk.parse(line)])
        with open(self.path) as file:
            self.assertEqual(file.read(), RECORDED)


class CountsTests(unittest.TestCase):
    """What logs of chunks count."""

    def test_each_kind(self):
        for kind, lines, wanted in [
            ("random", ["random operations, seed 1: 500 operations; comparison 101, kill 70, oracle 44, power cut 120, x",
                        "random operations, seed 2: 500 operations; power cut 1", "cut 9"],
             {"operations": 1000, "power cuts": 121, "simulated kills": 70}),
            ("crash", ["mixed operations: 8 runs: 2000 crash states, 3100 of a second crash, 248 kills, x", "1 crash states"],
             {"crash states": 2001, "states of a second crash": 3100, "simulated kills": 248}),
            ("faults", ["faults at 93 calls: (runs: 465, x", "wrong bits in 28 reads: x"], {"runs with a fault": 493}),
            ("hostile", ["hostile stores: 2000 from seed 1: x", "other hostile stores: 7 from seed 1"], {"hostile stores": 2000}),
            ("differential", ["    off: differential: ring, seeds 1 to 5: 900 operations in 12.3 s, 0 x"], {"operations": 900}),
            ("kill", ["51 kills in 40 rounds"], {}),
        ]:
            self.assertEqual(counts.counts(kind, lines), wanted, kind)


class BenchTests(unittest.TestCase):
    """The report of the benchmark."""

    def setUp(self):
        self.results = bench_report.Results(["create", "rand-read"], ["native", "ring", "bindfs"])
        for system, seconds, rates in [("native", [3, 1, 2], [100]), ("ring", [4, 1, 9], [50]), ("bindfs", [2, 2], [60])]:
            for value in seconds:
                self.results.add("create", system, value, value / 10)
            for value in rates:
                self.results.add("rand-read", system, value, 0)

    def test_medians_and_ratios(self):
        self.assertEqual(self.results.median("create", "ring"), 4)
        self.assertEqual(self.results.cpu("create", "ring"), 0.4)
        self.assertEqual(self.results.ratio("create", "ring", "native"), 0.5)
        self.assertEqual(self.results.ratio("rand-read", "ring", "native"), 0.5)
        self.assertEqual(self.results.ratio("create", "ring", "posix"), 0)

    def test_table(self):
        lines = bench_report.as_table(self.results, "what").splitlines()
        self.assertEqual(lines[2], "                    native            ring          bindfs")
        self.assertEqual(lines[3], "create             2.000 s     0.50x 0.40s    1.00x 0.20s")
        self.assertEqual(lines[4], "rand-read        100.000 /s    0.50x 0.00s    0.60x 0.00s")

    def test_json(self):
        read = json.loads(bench_report.as_json(self.results, True, 3, "what"))
        self.assertEqual(read["jobs"][0]["systems"]["ring"], {"median": 4, "values": [4, 1, 9], "ratio_to_native": 0.5, "cpu_seconds": 0.4})

    def test_slower_than_bindfs(self):
        options = types.SimpleNamespace(json=False, quick=False, rounds=3)
        with redirect_stdout(StringIO()) as output:
            slower = bench_report.report(self.results, options, "what")
        self.assertEqual(slower, 2)
        self.assertIn("FAIL create      ring  0.50x\n", output.getvalue())


class FiguresTests(unittest.TestCase):
    """Small statistics."""

    def test_share(self):
        self.assertEqual([figures.at_share(list(range(100)), share) for share in (0, 0.5, 0.99, 1)], [0, 50, 99, 99])
        self.assertEqual(figures.grouped(1234567), "1,234,567")


if __name__ == "__main__":
    unittest.main()
