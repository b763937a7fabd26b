"""Clients of a supervised mount whose serving process is killed under them: takeover.py DIRECTORY STORE KILLS

Every operation is of the kind that fails when it is done twice, or not at all; none may fail. Prints what was done.
"""
import ctypes
import fcntl
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
WAIT = 60


def names(root, number, stop, result):
    """Makes, links, renames, exchanges and removes names, and keeps a model of its directory."""
    generator = random.Random(number)
    top = f"{root}/names{number}"
    os.mkdir(top)
    here, count, turn = {}, 0, 0
    while not stop.is_set():
        turn += 1
        name = f"n{turn}"
        choice = generator.randrange(9) if len(here) > 4 else 0
        old = generator.choice(sorted(here)) if here else None
        if choice <= 1:
            fd = os.open(f"{top}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(fd, name.encode())
            os.close(fd)
            here[name] = name
        elif choice == 2:
            os.mkdir(f"{top}/{name}")
            os.rmdir(f"{top}/{name}")
        elif choice == 3:
            os.link(f"{top}/{old}", f"{top}/{name}")
            here[name] = here[old]
        elif choice == 4:
            os.rename(f"{top}/{old}", f"{top}/{name}")
            here[name] = here.pop(old)
        elif choice == 5:
            other = generator.choice(sorted(here))
            if libc.renameat2(-100, f"{top}/{old}".encode(), -100, f"{top}/{other}".encode(), 2) != 0:
                raise OSError(ctypes.get_errno(), "exchange")
            here[old], here[other] = here[other], here[old]
        elif choice == 6:
            os.unlink(f"{top}/{old}")
            del here[old]
        elif choice == 7:
            os.setxattr(f"{top}/{old}", "user.once", b"1", os.XATTR_CREATE)
            os.removexattr(f"{top}/{old}", "user.once")
        else:
            os.symlink(name, f"{top}/{name}.link")
            os.unlink(f"{top}/{name}.link")
        count += 1
        if turn % 200 == 0:
            assert sorted(os.listdir(top)) == sorted(here), "the names are not those of the model"
    assert sorted(os.listdir(top)) == sorted(here), "the names are not those of the model"
    for name, content in here.items():
        with open(f"{top}/{name}") as file:
            assert file.read() == content, name
    result.put(("operations on names", count))


def appends(root, number, stop, result):
    """Appends lines through one descriptor, under a lock that lasts."""
    path = f"{root}/log{number}"
    fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    count = 0
    while not stop.is_set():
        line = b"%d\n" % count
        assert os.write(fd, line) == len(line)
        if count % 50 == 0:
            os.fsync(fd)
        count += 1
    expected = b"".join(b"%d\n" % n for n in range(count))
    assert os.pread(fd, len(expected) + 10, 0) == expected, "the log is another one"
    other = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise AssertionError("the lock is gone")
    except BlockingIOError:
        pass
    result.put(("appends", count))


def transactions(root, number, stop, result):
    """One connection of SQLite, with a transaction open most of the time."""
    base = sqlite3.connect(f"{root}/base{number}", timeout=WAIT, isolation_level=None)
    base.execute("pragma journal_mode=" + ("wal" if number % 2 else "delete"))
    base.execute("create table t (n integer primary key, v text)")
    count = 0
    # One at least, however busy the machine is.
    while count == 0 or not stop.is_set():
        base.execute("begin immediate")
        for _ in range(20):
            base.execute("insert into t values (?, ?)", (count, "x" * (count % 700)))
            count += 1
        base.execute("commit")
    rows = base.execute("select count(*), max(n) from t").fetchone()
    assert rows == (count, count - 1), (rows, count)
    assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    result.put(("rows in transactions", count))


def orphans(root, number, stop, result):
    """Files without a name stay as long as they are open: removed before a kill, and after one."""
    count = 0
    held = []
    for n in range(20):
        fd = os.open(f"{root}/orphan{number}.{n}", os.O_CREAT | os.O_RDWR, 0o600)
        os.write(fd, b"%d" % n * 5000)
        held.append(fd)
    for n in range(10):
        os.unlink(f"{root}/orphan{number}.{n}")
    while not stop.is_set():
        n = count % 20
        assert os.pread(held[n], 1 << 20, 0) == b"%d" % n * 5000, n
        count += 1
        time.sleep(0.002)
    for n in range(10, 20):
        os.unlink(f"{root}/orphan{number}.{n}")
    for n in range(20):
        assert os.pread(held[n], 1 << 20, 0) == b"%d" % n * 5000, n
        assert os.fstat(held[n]).st_nlink == 0
    result.put(("reads of files without a name", count))


def guarded(body, root, number, stop, result):
    try:
        body(root, number, stop, result)
    except BaseException as error:
        result.put(("error", f"{body.__name__} {number}: {error!r}"))


def serving(store):
    with open(f"{store}/lock") as file:
        return int(file.readline())


def main():
    root, store, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
    stop, result = multiprocessing.Event(), multiprocessing.Queue()
    bodies = [names, names, names, appends, transactions, transactions, orphans]
    clients = [
        multiprocessing.Process(target=guarded, args=(body, root, n, stop, result)) for n, body in enumerate(bodies)
    ]
    for client in clients:
        client.start()
    generator = random.Random(kills)
    dead = set()
    for _ in range(kills):
        time.sleep(0.4 + generator.random() * 0.6)
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                pid = serving(store)
                if pid not in dead:
                    os.kill(pid, signal.SIGKILL)
                    dead.add(pid)
                    break
            except (OSError, ValueError):
                pass
            time.sleep(0.005)
    time.sleep(1)
    stop.set()
    failed = 0
    for _ in clients:
        what, value = result.get(timeout=WAIT)
        print(what, value)
        failed += what == "error"
    for client in clients:
        client.join()
    print(len(dead), "kills")
    sys.exit(1 if failed or len(dead) != kills else 0)


main()
