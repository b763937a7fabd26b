"""The file systems that mount-scripts/bench compares: how each is mounted, what its daemon has cost, and how it is taken away."""
import gzip
import os
import shutil
import subprocess
import sys
import time

import mounts

NAMES = ["native", "ring", "posix", "bindfs", "mergerfs", "passthrough_ll", "gocryptfs"]
EXAMPLES = "/usr/share/doc/libfuse3-dev/examples"
HERTZ = os.sysconf("SC_CLK_TCK")


class LeftOut(Exception):
    """A system cannot be had here; the message says why."""


def compiler():
    """The C compiler, or None."""
    return next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)


class System:
    """One system: the directory its jobs run in, and the process that serves it (none for the native one)."""

    def __init__(self, name, work, treering):
        self.name, self.work, self.treering = name, work, treering
        self.directory, self.source, self.log = f"{work}/{name}", f"{work}/{name}.source", f"{work}/{name}.log"
        self.daemon = None

    def start(self):
        """Mounts it; raises LeftOut where that cannot be."""
        os.mkdir(self.directory)
        if self.name == "native":
            return
        command = self.command()
        with open(self.log, "wb") as log:
            # In a session of its own, so that Ctrl-C reaches only bench.
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        for _ in range(100):
            if self.is_mounted():
                return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.05)
        with open(self.log, errors="replace") as log:
            last = (log.read().splitlines() or [""])[-1]
        self.stop()
        raise LeftOut(f"it does not mount: {last}")

    def command(self):
        """How it is mounted in the foreground."""
        if self.name in ("ring", "posix"):
            return [self.treering, "mount", self.source, self.directory, "-f", "-o", f"engine={self.name}"]
        if self.name == "passthrough_ll":
            program = self.passthrough()
        elif not shutil.which(self.name):
            raise LeftOut("not installed")
        os.mkdir(self.source)
        if self.name == "bindfs":
            return ["bindfs", "-f", self.source, self.directory]
        if self.name == "mergerfs":
            return ["mergerfs", "-f", "-o", "minfreespace=0", self.source, self.directory]
        if self.name == "passthrough_ll":
            return [program, "-f", "-o", f"source={self.source}", self.directory]
        password = ["-q", "-extpass", "echo bench"]
        if subprocess.run(["gocryptfs", "-init", *password, "-scryptn", "10", self.source], stdout=subprocess.DEVNULL).returncode != 0:
            raise LeftOut("its directory cannot be made")
        return ["gocryptfs", "-fg", *password, self.source, self.directory]

    def passthrough(self):
        """Compiles libfuse's example; the path of the program."""
        examples = f"{self.work}/examples"
        os.mkdir(examples)
        if os.path.isdir(EXAMPLES):
            for name in os.listdir(EXAMPLES):
                if name.startswith("passthrough"):
                    opener = gzip.open if name.endswith(".gz") else open
                    with opener(f"{EXAMPLES}/{name}", "rb") as packed, open(f"{examples}/{name.removesuffix('.gz')}", "wb") as plain:
                        shutil.copyfileobj(packed, plain)
        elif os.path.isfile(f"{EXAMPLES}.tar.gz"):
            mounts.run("tar", "-C", examples, "--strip-components=1", "-xzf", f"{EXAMPLES}.tar.gz")
        if not os.path.exists(f"{examples}/passthrough_ll.c"):
            raise LeftOut("its source comes with libfuse3-dev")
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True).stdout.split()
        program = f"{examples}/passthrough"
        if not mounts.run(compiler(), "-O2", "-w", f"{examples}/passthrough_ll.c", *flags, "-o", program):
            raise LeftOut("does not compile here")
        return program

    def is_mounted(self):
        """Whether the kernel lists it."""
        return bool(mounts.mounted(self.directory))

    def cpu_seconds(self):
        """The daemon's CPU time so far."""
        try:
            with open(f"/proc/{self.daemon.pid}/stat") as file:
                fields = file.read().rpartition(") ")[2].split()
            return (int(fields[11]) + int(fields[12])) / HERTZ
        except (AttributeError, OSError):
            return 0.0

    def stop(self):
        """Unmounts it, and waits until its daemon is gone."""
        if self.daemon is None:
            return
        for _ in range(50):
            if not self.is_mounted() or mounts.take_away(self.directory):
                break
            time.sleep(0.1)
        if self.is_mounted():
            mounts.take_away(self.directory, is_lazy=True)
        try:
            self.daemon.wait(10)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            print(f"bench: the daemon of {self.name} did not end by itself", file=sys.stderr)
        self.daemon = None
