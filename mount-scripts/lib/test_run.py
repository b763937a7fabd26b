"""Runs the groups of `mount-scripts/test`, which says what they are and installs what they need: test_run.py [--names] NAME...

With --names it only says whether there are such groups.
"""
import os
import re
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import mounts  # noqa: E402
import script_lint  # noqa: E402
import signals  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
# In release: millions of steps of simulation take minutes unoptimised. `swift test` alone runs the same, slowly. One build has the tests
# and the program that is mounted.
RELEASE = ["-c", "release", "-Xswiftc", "-enable-testing", "-Xswiftc", "-DSIMULATION", "--scratch-path", ".build-tests"]
STEP_SECONDS = {"lint": 300, "scripts": 300, "build": 900, "unit": 1500, "crash": 1500}
# Of what building and testing print, the lines that tell nothing when all is well.
PROGRESS = re.compile(r"^\[[0-9]+/[0-9]+\]")
CHATTER = re.compile(r"^\[[0-9]+/[0-9]+\]|^(◇|✔) |^Build|^Test (Suite|Case)|Executed 0 tests")
SHOWN_LINES = 60


# MARK: groups


def mounted_names():
    """The groups of Tests/Mount."""
    return [name[:-3] for name in sorted(os.listdir("Tests/Mount")) if name.endswith(".sh") and name != "lib.sh"]


def marks(name):
    """The words `alone`, `once` and `long` at the head of a group: `# alone: why`."""
    with open(f"Tests/Mount/{name}.sh") as file:
        return set(re.findall(r"^# (alone|once|long)\b(?:$|:)", file.read(), re.M))


class Job:
    """A mounted group on one engine, in a directory of its own."""

    def __init__(self, name, engine, directory):
        self.name, self.engine, self.directory = name, engine, directory
        self.title = f"{name} on {engine}"
        self.process = None
        self.begun = time.monotonic()

    def start(self, limit):
        """Begins it, its output in a file."""
        os.mkdir(self.directory, 0o755)
        environment = dict(os.environ, ENGINE=self.engine, TMPDIR=self.directory)
        # timeout(1) has a process group of its own: it ends the group's programs too, and the group cleans up.
        words = ["timeout", "--kill-after=30", str(limit), "bash", f"Tests/Mount/{self.name}.sh"]
        with open(f"{self.directory}.out", "wb") as output:
            self.process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.begun = time.monotonic()

    def output(self):
        """What it has said."""
        with open(f"{self.directory}.out", errors="replace") as file:
            return file.read()


class TestRun:
    """One run: what passed, what failed, and where the time went."""

    def __init__(self):
        self.passed, self.failures, self.times = 0, [], []
        self.limit = int(os.environ.get("TREERING_GROUP_SECONDS") or 360)
        self.engines = (os.environ.get("TREERING_TEST_ENGINES") or "ring posix").split()
        self.job_limit = int(os.environ.get("TREERING_TEST_JOBS") or min(8, 2 * (os.cpu_count() or 1)))
        self.jobs = []
        self.step = None
        # Everything of this run lives here, so that other runs are left alone.
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="treering-test."))
        os.chmod(self.directory, 0o755)
        os.environ["TMPDIR"] = self.directory
        self.started = 0

    # MARK: what came of a group

    def ended(self, title, code, limit, seconds):
        """Counts a group that has ended, and tells of it."""
        if code == 0:
            self.passed += 1
        else:
            self.failures.append(title)
            if code == 124:
                print(f"   {title} took longer than {limit} s")
            print(f"   FAILED: {title} (exit {code})")
        self.times.append((round(seconds), title))
        print(f"   {seconds:.0f} s", flush=True)

    def report(self, seconds):
        """The end: where the time went, what failed, how many passed; the exit code."""
        print()
        if len(self.times) > 3:
            print("where the time went:")
            for took, title in sorted(self.times, reverse=True)[:8]:
                print(f"   {took} s {title}")
        print(f"{seconds:.0f} s in all")
        for title in self.failures:
            print(f"failed: {title}")
        print(f"{self.passed} passed, {len(self.failures)} failed")
        return 1 if self.failures else 0

    # MARK: steps

    def run_step(self, name):
        """A step that is no mounted group; whether it passed."""
        print(f"== {name}", flush=True)
        begun = time.monotonic()
        if name == "lint":
            code = self.quiet(name, PROGRESS, "swift", "format", "lint", "--strict", "--recursive", "Sources", "Tests", "Package.swift")
        elif name == "scripts":
            code = script_lint.check(ROOT)
            code = self.quiet(name, PROGRESS, "python3", "-B", "-m", "unittest", "discover", "-q", "-s", "Tests/Scripts") or code
        elif name == "build":
            code = self.quiet(name, PROGRESS, "swift", "build", *RELEASE, "--build-tests")
        elif name == "unit":
            # `swift test` alone would build everything once more, with flags of its own.
            code = self.quiet(name, CHATTER, "swift", "test", "--skip-build", *RELEASE)
        else:
            # TREERING_CRASH_STATES crash states, TREERING_OPERATIONS random operations, faults, hostile stores, and variants broken on
            # purpose.
            os.environ.setdefault("TREERING_CRASH_STATES", "4000")
            code = self.quiet(name, CHATTER, "swift", "test", "--skip-build", *RELEASE, "--filter", "Simulation")
        self.ended(name, code, STEP_SECONDS[name], time.monotonic() - begun)
        return code == 0

    def quiet(self, name, dull, *words):
        """Runs a command with the step's time limit; shows the end of what tests, or what fails, say, but for dull lines. Its exit code."""
        command, path = ["timeout", "--kill-after=30", str(STEP_SECONDS[name]), *words], f"{self.directory}/{name}.out"
        # Not a pipe: somebody who outlives the command would keep it open.
        with open(path, "wb") as output:
            self.step = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            code = self.step.wait()
        with open(path, errors="replace") as output:
            lines = [line for line in output.read().splitlines() if not dull.search(line)]
        if code != 0 or dull is CHATTER:
            print("\n".join(lines[-SHOWN_LINES:]), flush=True)
        return code if code >= 0 else 128 - code

    # MARK: mounted groups

    def run_mounted(self, names):
        """Runs mounted groups: first those that may run beside others, then those that may not, one by one."""
        said = {name: marks(name) for name in names}
        together = [name for name in names if "alone" not in said[name]]
        # Long ones first: at the end all processors have something to do.
        together.sort(key=lambda name: "long" not in said[name])
        self.run_jobs([job for name in together for job in self.jobs_of(name, said[name])], self.job_limit)
        self.run_jobs([job for name in names if "alone" in said[name] for job in self.jobs_of(name, said[name])], 1)

    def jobs_of(self, name, said):
        """A group's jobs, one for each of its engines."""
        for engine in self.engines[:1] if "once" in said else self.engines:
            # A short name: paths of sockets are short.
            self.started += 1
            yield Job(name, engine, f"{self.directory}/{self.started}")

    def run_jobs(self, waiting, limit):
        """Runs jobs in their order, so many at a time."""
        waiting = list(reversed(waiting))
        while waiting or self.jobs:
            while waiting and len(self.jobs) < limit:
                job = waiting.pop()
                self.jobs.append(job)
                job.start(self.limit)
            for job in [job for job in self.jobs if job.process.poll() is not None]:
                self.jobs.remove(job)
                self.finish(job)
            time.sleep(0.05)

    def finish(self, job):
        """Shows what a job has said, and takes away what it has left."""
        print(f"== {job.title}")
        print(job.output(), end="")
        mounts.sweep(job.directory)
        remove(job.directory)
        code = job.process.returncode
        self.ended(job.title, code if code >= 0 else 128 - code, self.limit, time.monotonic() - job.begun)

    def stop(self):
        """Ends everything that still runs, which cleans up."""
        processes = [process for process in [self.step] + [job.process for job in self.jobs] if process and process.poll() is None]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        mounts.sweep(self.directory)
        remove(self.directory)


def remove(directory):
    """Removes a directory, but nothing through a mount below it."""
    subprocess.run(["rm", "-rf", "--one-file-system", directory], stderr=subprocess.DEVNULL)


# MARK: the command


def unknown(names):
    """The first name that is no group, or None."""
    return next((name for name in names if name not in STEP_SECONDS and name not in mounted_names()), None)


def run(test, names):
    """Runs the steps and groups of these names, in their order but that mounted groups come last."""
    if {"unit", "crash"} & set(names) and "build" not in names:
        names = ["build", *names]
    for name in (name for name in names if name in STEP_SECONDS):
        if not test.run_step(name) and name == "build":
            return
    mounted = [name for name in names if name not in STEP_SECONDS]
    if mounted:
        os.environ.setdefault("TREERING", f"{ROOT}/.build-tests/release/treering")
        if not os.access(os.environ["TREERING"], os.X_OK) and not test.run_step("build"):
            return
        test.run_mounted(mounted)


def main():
    """Runs what the command line names, or everything."""
    os.chdir(ROOT)
    names = sys.argv[1:]
    is_question = names[:1] == ["--names"]
    names = names[1:] if is_question else names
    stranger = unknown(names)
    if stranger is not None:
        print(f"test: {stranger}: there is no such group; there are {', '.join(STEP_SECONDS)}, {' '.join(mounted_names())}", file=sys.stderr)
        return 1
    if is_question:
        return 0
    begun = time.monotonic()
    # A seed must replay: sets and dictionaries keep their order from run to run.
    os.environ["SWIFT_DETERMINISTIC_HASHING"] = "1"
    test = TestRun()
    signals.raise_interrupted()
    try:
        run(test, names or ["lint", "scripts", "build", "unit"] + mounted_names())
    except signals.Interrupted as interruption:
        print("interrupted", flush=True)
        return interruption.code
    finally:
        test.stop()
    return test.report(time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
