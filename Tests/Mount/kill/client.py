"""Clients: processes that work in the mount until it is gone, each with a log of what was acknowledged to it."""
import errno
import os
import signal
import sqlite3
import sys
import time
import traceback

from settings import Wrong, full, mount_point, work


def is_gone(error):
    """Whether the error says that the serving process is gone; ENOENT comes from below an unmounted directory. The kernel answers EIO
    when the process dies while a request is copied: then the mount must be dead a moment later."""
    if error.errno == errno.EIO:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try: os.statvfs(mount_point)
            except OSError as other: return other.errno in (errno.ECONNABORTED, errno.ENOTCONN)
            time.sleep(0.005)
    return error.errno in (errno.ECONNABORTED, errno.ENOTCONN, errno.ENOENT)


class Client:
    """A process that works in the mount until it is gone, and a log of what was acknowledged to it."""

    def __init__(self, name, body):
        self.name = name
        self.log = f"{work}/{name}.log"
        self.place = f"{mount_point}/{name}"
        self.pid = os.fork()
        if self.pid != 0:
            # Here as well: whoever comes first.
            try: os.setpgid(self.pid, self.pid)
            except (PermissionError, ProcessLookupError): pass
        if self.pid == 0:
            code = 1
            os.setpgid(0, 0)
            try:
                log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
                body(self.place, lambda *words: os.write(log, (" ".join(str(word) for word in words) + "\n").encode()))
                code = 0
            except OSError as error:
                if is_gone(error): code = 0
                else: traceback.print_exc(file=sys.stdout)
            except sqlite3.OperationalError:
                code = 0
            except sqlite3.Error as error:
                print(f"    {self.name}: {error}")
            finally:
                os._exit(code)

    def lines(self):
        """The words of each whole line of its log."""
        try: return [line.split() for line in open(self.log) if line.endswith("\n")]
        except FileNotFoundError: return []

    def end(self):
        """With what it has started: a fio that outlives its client would go on in the next mount."""
        try: os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError: pass

    def wait(self, seconds=60):
        """Waits until it has seen that the mount is gone."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.end()
                if status != 0: raise Wrong(f"{self.name} ended with {status}")
                return
            time.sleep(0.005)
        self.end()
        os.waitpid(self.pid, 0)
        raise Wrong(f"{self.name} hung for {seconds} s after the serving process was gone")


def is_refused(error):
    """Whether an error is the answer of a full store."""
    return full and error.errno == errno.ENOSPC


def attempt(note, operation, *words):
    """Logs what it is about to do before, `ok` after; or `no`, and gives None, where there is no space."""
    note(*words)
    try: result = operation()
    except OSError as error:
        if not is_refused(error): raise
        note("no")
        return None
    note("ok")
    return True if result is None else result


def make_place(root):
    """Makes a client's directory, as soon as there is space."""
    while True:
        try: return os.mkdir(root)
        except OSError as error:
            if not is_refused(error): raise
        time.sleep(0.01)
