"""What mount-scripts/bench prints: medians, ratios to the native directory and to bindfs, as a table or as JSON."""
import json
import statistics
import sys

# A job may be so much slower than on bindfs: noise.
TOLERATED = 0.95
OURS = ("ring", "posix")


class Results:
    """What was measured, by job and system: seconds, or operations a second, and the daemon's CPU seconds."""

    def __init__(self, jobs, systems):
        self.jobs, self.systems = jobs, systems
        self.values = {(job, system): [] for job in jobs for system in systems}
        self.cpu_seconds = {(job, system): [] for job in jobs for system in systems}

    def add(self, job, system, value, cpu_seconds):
        """Takes one run of a job."""
        self.values[job, system].append(value)
        self.cpu_seconds[job, system].append(cpu_seconds)

    def median(self, job, system):
        """The median of a job's runs; 0 when none succeeded."""
        return statistics.median(self.values[job, system] or [0])

    def cpu(self, job, system):
        """The median of the daemon's CPU seconds."""
        return statistics.median(self.cpu_seconds[job, system] or [0])

    def ratio(self, job, system, other):
        """How many times as fast a system is as another one; 0 when one of them has no result."""
        mine, others = self.median(job, system), self.values.get((job, other)) and self.median(job, other)
        if not mine or not others:
            return 0.0
        return mine / others if counts_operations(job) else others / mine


def counts_operations(job):
    """Whether the job's value is operations a second: more is better then."""
    return job.startswith("rand")


def as_json(results, is_quick, rounds, what):
    """Everything as JSON: one line for each job."""
    lines = []
    for job in results.jobs:
        systems = {
            system: {
                "median": round(results.median(job, system), 6), "values": results.values[job, system],
                "ratio_to_native": round(results.ratio(job, system, "native"), 3), "cpu_seconds": round(results.cpu(job, system), 2),
            } for system in results.systems
        }
        unit = "operations per second" if counts_operations(job) else "seconds"
        lines.append("\n  " + json.dumps({"job": job, "unit": unit, "systems": systems}))
    head = json.dumps({"quick": is_quick, "rounds": rounds, "what": what})[:-1]
    return f'{head}, "jobs": [{",".join(lines)}\n ]}}'


def as_table(results, what):
    """A line for each job: the native directory's value, then ratios and CPU seconds."""
    others = results.systems[1:]
    lines = [what, "", f"{'':11} {'native':>14}" + "".join(f" {system:>15}" for system in others)]
    for job in results.jobs:
        unit = "/s" if counts_operations(job) else "s "
        cells = "".join(f"  {results.ratio(job, system, 'native'):6.2f}x {results.cpu(job, system):4.2f}s" for system in others)
        lines.append(f"{job:11} {results.median(job, 'native'):12.3f} {unit}{cells}")
    return "\n".join(lines + ["", "x: speed, native = 1; s: CPU seconds of the daemon"])


def against_bindfs(results):
    """Whether treering is slower than bindfs, job by job, as text; and how many times it is."""
    if "bindfs" not in results.systems:
        return "no job slower than bindfs: not checked, bindfs is not there", 0
    lines, slower = ["", "no job slower than bindfs (5 % allowed for noise):"], 0
    for job in results.jobs:
        for system in results.systems:
            if system in OURS:
                ratio = results.ratio(job, system, "bindfs")
                slower += ratio < TOLERATED
                lines.append(f"{'PASS' if ratio >= TOLERATED else 'FAIL'} {job:11} {system:5} {ratio:.2f}x")
    return "\n".join(lines + [f"{slower} of them slower than bindfs" if slower else "none slower than bindfs"]), slower


def report(results, options, what):
    """Prints everything; how many jobs are slower than on bindfs."""
    print(as_json(results, options.quick, options.rounds, what) if options.json else as_table(results, what))
    words, slower = against_bindfs(results)
    print(words, file=sys.stderr if options.json else sys.stdout, flush=True)
    return slower
