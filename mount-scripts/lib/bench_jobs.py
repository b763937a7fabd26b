"""The jobs of mount-scripts/bench: each does its work in a directory and gives seconds, or operations a second (rand-*)."""
import os
import signal
import subprocess
import time
from dataclasses import dataclass

NAMES = [
    "seq-write", "seq-read", "rand-read", "rand-write", "durable-1", "durable-4", "files-1", "files-4", "create", "stat", "rename", "unlink",
    "untar", "copy", "git-add", "git-status",
]
# What must have run before a job, on the same system.
NEEDED = {
    "seq-read": ["seq-write"], "stat": ["create"], "rename": ["create"], "unlink": ["create", "rename"], "copy": ["untar"],
    "git-add": ["untar"], "git-status": ["untar", "git-add"],
}
LIMIT_SECONDS = 600
# The fields of fio's terse output, version 3, that hold operations a second.
READ_RATE, WRITE_RATE = 7, 48


class JobFailed(Exception):
    """A job failed; the message is the last it said."""


@dataclass
class Sizes:
    """How much each job does."""

    mib: int = 256
    durable: int = 300
    files: int = 200
    names: int = 3000
    fio_milliseconds: int = 2000
    tree_files: int = 2000

    def words(self, tree_count):
        """The sizes, as the report has them."""
        return (f"{self.mib} MiB files; {self.durable} durable writes and {self.files} files of 4 KiB per job; "
                f"{self.names} names; a tree of {tree_count} files")


QUICK = Sizes(mib=8, durable=20, files=20, names=100, fio_milliseconds=100, tree_files=100)


class Jobs:
    """Runs jobs, one at a time; `work` has the compiled worker and the archive of the tree."""

    def __init__(self, work, sizes):
        self.work, self.sizes = work, sizes
        self.running = None

    def run(self, job, directory):
        """The value of a job in a directory."""
        kind, _, processes = job.partition("-")
        if job == "seq-write":
            return self.worker(job, directory, self.sizes.mib)
        if job == "seq-read":
            drop_caches()
            return self.worker(job, directory, self.sizes.mib)
        if kind == "rand":
            return self.random(job, directory)
        if kind in ("durable", "files"):
            return self.worker(kind, directory, getattr(self.sizes, kind), processes)
        if job == "untar":
            return self.timed(["tar", "-C", directory, "-xf", f"{self.work}/tree.tar"])
        if job == "copy":
            return self.timed(["cp", "-a", f"{directory}/tree", f"{directory}/copy"])
        if kind == "git":
            return self.git(job, f"{directory}/tree")
        return self.worker(job, directory, self.sizes.names)

    def worker(self, what, directory, count, processes=1):
        """Seconds that the worker measured itself."""
        return float(self.output([f"{self.work}/worker", what, directory, str(count), str(processes)]))

    def timed(self, *commands):
        """The seconds that commands take, one after the other."""
        begun = time.monotonic()
        for command in commands:
            self.output(command)
        return round(time.monotonic() - begun, 6)

    def git(self, job, tree):
        """Puts a tree into a new repository, or asks what has changed in it."""
        def git(*words):
            return ["git", "-C", tree, *words]
        if job == "git-status":
            return self.timed(git("status", "--porcelain"))
        return self.timed(
            git("init", "-q", "."), git("add", "-A"), git("-c", "user.name=b", "-c", "user.email=b@b", "commit", "-q", "-m", "bench"))

    def random(self, job, directory):
        """Operations a second on a file a quarter as large as that of the sequential jobs.

        Without the advice that reads are random: it would reach the native file's readahead, but not that of a file below a daemon. Reads are
        of each block once, in random order: a second reading is served by the kernel, and the little time left for it would decide.
        """
        mib, path = self.sizes.mib // 4, f"{directory}/random"
        if not os.path.exists(path):
            with open(path, "wb") as file:
                for _ in range(mib):
                    file.write(os.urandom(1 << 20))
        self.output(["sync", "-d", path])
        drop_caches()
        is_reading = job == "rand-read"
        limit = [] if is_reading else ["--time_based", f"--runtime={self.sizes.fio_milliseconds}ms"]
        said = self.output([
            "fio", "--name=bench", f"--filename={path}", f"--rw={'randread' if is_reading else 'randwrite'}", "--bs=4k", "--ioengine=psync", *limit,
            f"--size={mib}m", "--randseed=7", "--fadvise_hint=0", "--output-format=terse", "--terse-version=3"])
        for fields in (line.split(";") for line in said.splitlines()):
            if fields[0] == "3":
                return int(fields[READ_RATE if is_reading else WRITE_RATE])
        raise JobFailed("fio said nothing")

    def output(self, command):
        """Runs a command to its end; what it said."""
        self.running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
        try:
            said, errors = self.running.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.stop()
            raise JobFailed(f"it took longer than {LIMIT_SECONDS} s") from None
        code, self.running = self.running.returncode, None
        if code != 0:
            raise JobFailed((errors.splitlines() or [f"exit {code}"])[-1])
        return said

    def stop(self):
        """Ends the command that runs, and all that it started."""
        process, self.running = self.running, None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process is None or process.poll() is not None:
                return
            os.killpg(process.pid, number)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                pass


def drop_caches():
    """What was read before is read from the disk again; only root can say so."""
    if os.geteuid() == 0:
        try:
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write("1")
        except OSError:
            pass
