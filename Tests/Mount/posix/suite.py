# The frame of the POSIX suite: tests are functions that take a Run, are registered with @test, and run in an empty directory
# of their own. Each `expect` is an assertion; one that fails is told with its source line and does not end the test.
import collections
import contextlib
import errno
import linecache
import os
import pickle
import shutil
import signal
import stat
import sys
import time
import traceback

import calls

TESTS = []
# Ids that nobody has.
User = collections.namedtuple("User", "uid gid groups")
ROOT = User(0, 0, ())
ALICE = User(61001, 62001, ())
BOB = User(61002, 62002, ())
MEMBER = User(61003, 62003, (62001,))  # supplementary member of Alice's group
GROUPMATE = User(61004, 62001, ())  # Alice's group is the own one


def test(function):
    """Makes a function a test of the suite."""
    TESTS.append(function)
    return function


def pattern(count, seed=0):
    """So many bytes, or some more, that tell their places."""
    return bytes((i * 7 + seed + i // 256) & 0xFF for i in range(min(count, 2048))) * (count // 2048 + 1)


def name_of(result):
    """A result as a person reads it: -2 as ENOENT."""
    if isinstance(result, int) and not isinstance(result, bool) and -200 < result < 0:
        return errno.errorcode.get(-result, str(result))
    text = repr(result)
    return text if len(text) <= 300 else text[:300] + "..."


class Run:
    """One run of the suite over one directory."""

    def __init__(self, directory, is_oracle, options):
        self.directory = directory
        self.is_oracle = is_oracle
        self.options = options
        self.run = self.failed = 0
        self.excused = collections.Counter()
        self.shown = collections.Counter()
        self.test = ""
        self.context = []
        self.excuse = None

    # Assertions.

    def expect(self, wanted, result, what=""):
        """The result of a call, or a value, has to be the wanted one."""
        same = bool(wanted(result)) if callable(wanted) else wanted == result
        if self.excuse is not None and not same:
            self.excused[self.excuse] += 1
            return False
        self.run += 1
        if not same:
            self.failed += 1
            wanted = "what the test says" if callable(wanted) else name_of(wanted)
            self.tell(f"{what + ': ' if what else ''}expected {wanted}, got {name_of(result)}")
        return same

    def true(self, holds, what=""):
        """Something has to hold."""
        return self.expect(True, bool(holds), what)

    def opened(self, result):
        """The call has to give a descriptor, which is returned (or -1)."""
        self.expect(lambda r: isinstance(r, int) and r >= 0, result, "a descriptor" if result >= 0 else name_of(result))
        return result if isinstance(result, int) and result >= 0 else -1

    def tell(self, message):
        """Shows a failure, with the line of the test and the case."""
        frame = sys._getframe(2)
        while frame.f_code.co_filename == __file__:
            frame = frame.f_back
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        context = " ".join(map(str, self.context))
        text = f"{self.test}{' [' + context + ']' if context else ''}: {message}\n" \
               f"        {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}: {line}"
        self.shown[self.test] += 1
        if self.shown[self.test] <= self.options.show:
            print("  FAIL " + text, flush=True)

    @contextlib.contextmanager
    def case(self, *context):
        """What follows is about this case; said with each failure."""
        self.context.append(", ".join(map(str, context)))
        try:
            yield
        finally:
            self.context.pop()

    @contextlib.contextmanager
    def differs(self, on, reason):
        """What follows need not hold on `on` ("ext4" or "treering"), for the reason given; docs/posix.md explains each."""
        before = self.excuse
        if on == ("ext4" if self.is_oracle else "treering"):
            self.excuse = reason
        try:
            yield
        finally:
            self.excuse = before

    def differs_with_writeback(self, reason):
        """What follows need not hold on a mount with the writeback cache."""
        return self.differs("treering" if "writeback_cache=on" in self.options.options else "", f"with the writeback cache {reason}")

    # Things that tests need.

    @contextlib.contextmanager
    def user(self, user):
        """What follows is done with the user's effective ids and without capabilities."""
        os.setgroups(list(user.groups))
        calls.raw("setresgid", -1, user.gid, -1)
        calls.raw("setresuid", -1, user.uid, -1)
        try:
            yield
        finally:
            calls.raw("setresuid", -1, 0, -1)
            calls.raw("setresgid", -1, 0, -1)
            os.setgroups([])

    def child(self, function, *arguments):
        """What the function returns in a process of its own; the signal's negative number and "signal" where one ends it."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reader)
                signal.alarm(20)
                with os.fdopen(writer, "wb") as stream:
                    pickle.dump(function(*arguments), stream)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return ("signal", os.WTERMSIG(status))
        return pickle.loads(data) if data else ("exit", os.WEXITSTATUS(status))

    def file(self, path, data=b"", mode=0o644, owner=None):
        """A file that was not there."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if data:
            os.write(fd, data)
        if owner:
            os.fchown(fd, owner.uid, owner.gid)
        os.fchmod(fd, mode)
        os.close(fd)
        return path

    def dir(self, path, mode=0o755, owner=None):
        """A directory that was not there."""
        os.mkdir(path)
        if owner:
            os.chown(path, owner.uid, owner.gid)
        os.chmod(path, mode)
        return path

    def content(self, path):
        """All bytes of a file."""
        with open(path, "rb") as stream:
            return stream.read()

    def exists(self, path): return os.path.lexists(path)
    def mode(self, path): return stat.S_IMODE(os.lstat(path).st_mode)
    def links(self, path): return os.lstat(path).st_nlink
    def size(self, path): return os.lstat(path).st_size
    def owner(self, path): return (os.lstat(path).st_uid, os.lstat(path).st_gid)

    def tick(self):
        """Any clock that stamps files has moved on."""
        time.sleep(0.011)

    def changed(self, paths, action):
        """Does `action`; which of "a", "m", "c" moved, for each path (or descriptor)."""
        def times(): return [os.lstat(p) if not isinstance(p, int) else os.fstat(p) for p in paths]
        before = times()
        self.tick()
        self.result = action()
        after = times()
        return ["".join(letter for letter, field in (("a", "st_atime_ns"), ("m", "st_mtime_ns"), ("c", "st_ctime_ns"))
                        if getattr(old, field) != getattr(new, field)) for old, new in zip(before, after)]

    # Running.

    def run_in(self, place, function):
        """Runs a test there; one that ends early has failed."""
        self.test = function.__name__
        self.context, self.excuse = [], None
        os.chdir(place)
        os.umask(0)
        try:
            function(self)
        except Exception as error:
            self.run += 1
            self.failed += 1
            frame = traceback.extract_tb(error.__traceback__)
            at = next((f for f in reversed(frame) if os.path.basename(f.filename).startswith("test_")), frame[-1])
            print(f"  FAIL {self.test}: ended by {error!r} at {os.path.basename(at.filename)}:{at.lineno}: {at.line}", flush=True)
        os.umask(0o22)
        os.chdir(self.directory)

    def run_tests(self, tests):
        """Runs tests, each in a directory of its own."""
        slow = []
        for function in tests:
            place = os.path.join(self.directory, function.__name__)
            os.mkdir(place)
            os.chmod(place, 0o777)
            begun = time.monotonic()
            self.run_in(place, function)
            slow.append((time.monotonic() - begun, self.test))
            remove(place)
        if self.options.slow:
            for seconds, name in sorted(slow, reverse=True)[:10]:
                print(f"  {seconds:6.2f} s {name}")


def remove(place):
    """Takes a test's directory away, flags that forbid it included."""
    def forgive(function, path, _):
        for victim in (path, os.path.dirname(path)):
            fd = calls.open_(victim, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            if fd >= 0:
                calls.drop_flags(fd, calls.FS_IMMUTABLE | calls.FS_APPEND)
                os.close(fd)
        calls.attempt(function, path)
    shutil.rmtree(place, onerror=forgive)
