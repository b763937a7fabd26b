"""Kills the serving process over and over under a mixed load and looks at what is there after each: kill.py says how.

kill.py TREERING ENGINE STORE MOUNTPOINT WORK FIRST COUNT [full]: kills with the seeds FIRST.. on a store that is not mounted,
and leaves it unmounted. In each round two clients make, write, rename, sync and remove files, one more runs fio, SQLite or git, and the
process dies at a random time of their work, of an unmount, or (again) of the mount that recovers. Clients log outside of the mount, after
each operation: what is in the log must be there.

With `full` the store is kept at nine tenths of its capacity by a ballast that is overwritten as well, and the cleaner is eager. ENOSPC is an
answer then: what got it has not happened.
"""

import errno
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import traceback

treering, engine, store, mount_point, work = sys.argv[1:6]
first, count = int(sys.argv[6]), int(sys.argv[7])
full = sys.argv[8:] == ["full"]
kills = 0
when = {"serving": 0, "unmounting": 0, "mounting": 0}
acknowledged = 0
refused = 0
shares = []
git_environment = dict(os.environ, GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="gc.auto", GIT_CONFIG_VALUE_0="0", GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t@t",
                       GIT_COMMITTER_NAME="t", GIT_COMMITTER_EMAIL="t@t")


class Wrong(Exception):
    pass


# MARK: the mount


def owner():
    """The process that holds the store, if it is one of ours."""
    try:
        pid = int(open(f"{store}/lock").readline())
        command = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\0", b" ").decode()
        return pid if "treering" in command and store in command else None
    except (OSError, ValueError):
        return None


def wait_gone(pid, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ") Z " in open(f"/proc/{pid}/stat").read():
                return
        except OSError:
            return
        time.sleep(0.005)
    raise Wrong(f"process {pid} is still there {seconds} s after it was killed")


def kill_owner(what):
    global kills
    pid = owner()
    if pid is None: return
    try: os.kill(pid, signal.SIGKILL)
    except ProcessLookupError: return
    kills += 1
    when[what] += 1
    wait_gone(pid)


def options(generator):
    """Small staging rolls batches, a short commit interval overlaps them with the work."""
    words = [f"engine={engine}"]
    # What a store may hold depends on what staging may: a full one always gets the same.
    if generator.random() < 0.3 and not full: words.append("staging=1M")
    if generator.random() < 0.3: words.append("commit=1")
    if generator.random() < 0.3: words.append("index_cache=4M")
    if full: words.append("clean=eager")
    return ",".join(words)


def start(generator):
    """Mounts over what is left of the dead mount. One mount in four is killed while it recovers."""
    global kills
    # A dead mount is no obstacle.
    if generator.random() < 0.5: clear()
    words = [treering, "mount", store, mount_point, "-o", options(generator)]
    if generator.random() < 0.25:
        process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 5
        while owner() is None and process.poll() is None and time.monotonic() < end: time.sleep(0.001)
        time.sleep(generator.random() ** 2 * 0.06)
        pid = owner()
        try: os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        process.wait()
        if pid is not None:
            # Its own session once the mount is usable.
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass
            wait_gone(pid)
            kills += 1
            when["mounting"] += 1
    clear()
    answer = subprocess.run(words, timeout=120, capture_output=True, text=True)
    if answer.returncode != 0: raise Wrong(f"does not mount again: {answer.stderr.strip()}")
    if answer.stderr.strip(): print("   ", answer.stderr.strip())


def clear():
    while f" {mount_point} fuse" in open("/proc/mounts").read():
        if subprocess.run(["fusermount3", "-uz", mount_point], capture_output=True).returncode != 0:
            subprocess.run(["umount", "-l", mount_point], check=True)


def stop():
    pid = owner()
    for _ in range(40):
        if subprocess.run(["fusermount3", "-u", mount_point], capture_output=True).returncode == 0: break
        time.sleep(0.1)
    else: raise Wrong("cannot be unmounted")
    if pid is not None: wait_gone(pid)


def check():
    answer = subprocess.run([treering, "check", store], timeout=600, capture_output=True, text=True)
    if answer.returncode != 0: raise Wrong(f"check: exit {answer.returncode}: {(answer.stdout + answer.stderr).strip()[-1000:]}")


# MARK: clients


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
        try: return [line.split() for line in open(self.log) if line.endswith("\n")]
        except FileNotFoundError: return []

    def end(self):
        """With what it has started: a fio that outlives its client would go on in the next mount."""
        try: os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError: pass

    def wait(self, seconds=60):
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
    while True:
        try: return os.mkdir(root)
        except OSError as error:
            if not is_refused(error): raise
        time.sleep(0.01)


def files(seed):
    """Operations on names and contents."""

    def body(root, note):
        generator = random.Random(seed)
        names = []
        number = 0

        def remove(count):
            for _ in range(count):
                name = names.pop(generator.randrange(len(names)))
                note("unlink", name)
                os.unlink(f"{root}/{name}")
                note("ok")

        make_place(root)
        while True:
            choice = generator.randrange(20)
            found = True
            if choice < 10 or len(names) < 3:
                name = f"f{number}"
                number += 1
                size = generator.choice([0, 1, 100, 3000, 5000, 70000])
                found = descriptor = attempt(note, lambda: os.open(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "create", name)
                if found:
                    names.append(name)
                    if size:
                        fill = generator.randrange(1, 256)
                        found = attempt(note, lambda: os.write(descriptor, bytes([fill]) * size), "write", name, size, fill)
                        assert found in (size, None)
                    if generator.random() < 0.1: os.fsync(descriptor)
                    os.close(descriptor)
            elif choice < 16:
                at = generator.randrange(len(names))
                target = f"f{number}"
                number += 1
                # One rename in three goes over another file.
                if generator.random() < 0.33:
                    other = generator.randrange(len(names))
                    if other != at: target = names[other]
                found = attempt(note, lambda: os.rename(f"{root}/{names[at]}", f"{root}/{target}"), "rename", names[at], target)
                if found:
                    old = names[at]
                    names[:] = [name for name in names if name not in (old, target)] + [target]
            else: remove(1)
            # In a full store removing must go on.
            if found is None: remove((len(names) + 2) // 3)

    return body


def look_files(client):
    """The operation that the log ends in may have happened or not; every other one has."""
    global acknowledged, refused

    def apply(state, words):
        state = dict(state)
        kind, name, *rest = words
        if kind == "create": state[name] = b""
        elif kind == "write": state[name] = bytes([int(rest[1])]) * int(rest[0])
        elif kind == "rename": state[rest[0]] = state.pop(name)
        else: del state[name]
        return state

    state, pending = {}, None
    for words in client.lines():
        if words == ["ok"]:
            state, pending = apply(state, pending), None
            acknowledged += 1
        elif words == ["no"]:
            pending = None
            refused += 1
        else: pending = words
    states = [state] + ([apply(state, pending)] if pending else [])
    if not os.path.isdir(client.place):
        if client.lines(): raise Wrong(f"{client.name}: the directory is gone")
        return
    found = {name: open(f"{client.place}/{name}", "rb").read() for name in os.listdir(client.place)}
    if found in states: return
    lost = [f"{name}: {len(found.get(name, b''))} bytes" for name in state if found.get(name) != state[name]]
    extra = [name for name in found if name not in state]
    raise Wrong(f"{client.name}: differ {lost[:5]}, not expected {extra[:5]}, pending {pending}")


def database(journal):
    """Transactions that double-enter a number; each is logged when its commit has returned."""

    def body(root, note):
        make_place(root)
        connection = sqlite3.connect(f"{root}/db", isolation_level=None)
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE one (n INTEGER PRIMARY KEY, filling BLOB)")
        connection.execute("CREATE TABLE two (n INTEGER PRIMARY KEY)")
        note("made")
        number = 0
        while True:
            try:
                connection.execute("BEGIN")
                connection.execute("INSERT INTO one VALUES (?, ?)", (number, bytes(number * 97 % 9000)))
                connection.execute("INSERT INTO two VALUES (?)", (number,))
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if not full or "full" not in str(error): raise
                if connection.in_transaction: connection.execute("ROLLBACK")
                continue
            note(number)
            number += 1

    return body


def look_database(client):
    lines = client.lines()
    if not lines: return
    connection = sqlite3.connect(f"{client.place}/db")
    answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if answer != "ok": raise Wrong(f"{client.name}: integrity_check: {answer}")
    found = [connection.execute(f"SELECT n FROM {table} ORDER BY n").fetchall() for table in ("one", "two")]
    connection.close()
    if found[0] != found[1]: raise Wrong(f"{client.name}: half a transaction")
    committed = len(lines) - 1
    if [row[0] for row in found[0]] not in (list(range(committed)), list(range(committed + 1))):
        raise Wrong(f"{client.name}: {committed} transactions were committed, {len(found[0])} are there")


def repository(root, note):
    """Commits, one after the other; each is logged when it has returned."""
    make_place(root)

    def git(*words):
        try: answer = subprocess.run(["git", "-C", root, *words], env=git_environment, capture_output=True, text=True)
        except OSError: os._exit(0)
        if answer.returncode != 0: os._exit(0)
        return answer.stdout

    git("init", "-q")
    for number in range(1000000):
        for name in range(20):
            try:
                with open(f"{root}/{number % 7}-{name}", "w") as file: file.write(f"{number} {name}\n" * (name * 40 + 1))
            except OSError as error:
                if is_refused(error): os._exit(0)
                raise
        git("add", "-A")
        git("commit", "-qm", f"{number}")
        note(git("rev-parse", "HEAD").strip())


def look_repository(client):
    lines = client.lines()
    if not lines: return

    def git(*words):
        answer = subprocess.run(["git", "-C", client.place, *words], env=git_environment, capture_output=True, text=True)
        if answer.returncode != 0: raise Wrong(f"{client.name}: git {words[0]}: {answer.stderr.strip()[-500:]}")
        return answer.stdout

    for name in ("index.lock", "HEAD.lock"):
        if os.path.exists(f"{client.place}/.git/{name}"): os.unlink(f"{client.place}/.git/{name}")
    git("fsck", "--full")
    history = git("rev-list", "HEAD").split()
    if lines[-1][0] not in history[:2]: raise Wrong(f"{client.name}: commit {lines[-1][0]} is not in the history")
    git("add", "-A")


def blocks(root, note):
    """fio writes blocks that name their own place."""
    make_place(root)
    note("begun")
    subprocess.run(
        ["fio", f"--aux-path={work}", "--name=f", f"--directory={root}", "--size=4m", "--rw=randwrite", "--bs=4k", "--verify=crc32c", "--thread",
         "--do_verify=0", "--fallocate=none", "--ioengine=psync", "--time_based", "--runtime=30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def look_blocks(client):
    """Each block is whole: old or new, never a mixture."""
    path = f"{client.place}/f.0.0"
    if not os.path.exists(path): return
    data = open(path, "rb").read()
    empty = bytes(4096)
    for start in range(0, len(data) - 4095, 4096):
        block = data[start:start + 4096]
        if block == empty: continue
        # struct verify_header: magic u16 0xacca, verify_type u16, len u32, rand_seed u64, offset u64, ...
        magic, _, length, _, offset = struct.unpack_from("<HHIQQ", block)
        if magic != 0xACCA or length != 4096 or offset != start:
            raise Wrong(f"{client.name}: block at {start}: magic {magic:x}, length {length}, says it belongs to {offset}")


# MARK: ballast

# What each block of each of its files holds.
ballast = {}
block_size, blocks_per_file = 16384, 64


def ballast_path(number): return f"{mount_point}/ballast-{number}"


def ballast_block(number, block, version): return struct.pack("<IIQ", number, block, version) * (block_size // 16)


def used_share():
    state = os.statvfs(mount_point)
    return 100 * (state.f_blocks - state.f_bfree) / state.f_blocks


def remove_ballast(number):
    os.unlink(ballast_path(number))
    del ballast[number]


def wait_free(share):
    """A removed file's space is free when the kernel has forgotten it."""
    end = time.monotonic() + 20
    while used_share() > share:
        if time.monotonic() > end: raise Wrong(f"{used_share():.0f} % are in use 20 s after files were removed, with {len(ballast)} left")
        time.sleep(0.01)


def adjust_ballast(version, share):
    """So many percent are in use when a round begins; what its clients write comes on top."""
    before = used_share()
    if before > share:
        # Each takes one percent and more.
        for number in sorted(ballast)[:int(before - share) + 1]: remove_ballast(number)
        wait_free(share)
    while used_share() < share:
        number = max(ballast, default=0) + 1
        ballast[number] = [version] * blocks_per_file
        try:
            with open(ballast_path(number), "wb") as file:
                file.write(b"".join(ballast_block(number, block, version) for block in range(blocks_per_file)))
        except OSError as error:
            if error.errno != errno.ENOSPC: raise
            return remove_ballast(number)


def overwriting(seed):
    """Overwrites blocks of the ballast: every segment comes to hold something dead."""

    def body(root, note):
        generator = random.Random(seed)
        version = seed << 32
        descriptors = {number: os.open(ballast_path(number), os.O_WRONLY) for number in ballast}
        while True:
            number, block = generator.choice(sorted(ballast)), generator.randrange(blocks_per_file)
            version += 1
            data = ballast_block(number, block, version)
            found = attempt(note, lambda: os.pwrite(descriptors[number], data, block * block_size), number, block, version)
            assert found in (block_size, None)
            if found is None: time.sleep(0.005)
            elif generator.random() < 0.02: os.fsync(descriptors[number])

    return body


def look_ballast(client):
    """Every block holds what was last acknowledged, or what the log ends in."""
    global acknowledged, refused
    pending = None
    for words in client.lines():
        if words == ["ok"]:
            number, block, version = pending
            ballast[number][block] = version
            acknowledged += 1
        elif words == ["no"]: refused += 1
        pending = None if words[0] in ("ok", "no") else [int(word) for word in words]
    for number, versions in ballast.items():
        data = open(ballast_path(number), "rb").read()
        if len(data) != block_size * blocks_per_file: raise Wrong(f"ballast {number} has {len(data)} bytes")
        for block, version in enumerate(versions):
            found = data[block * block_size:][:block_size]
            if found == ballast_block(number, block, version): continue
            if pending and pending[:2] == [number, block] and found == ballast_block(*pending):
                versions[block] = pending[2]
                continue
            raise Wrong(f"ballast {number}, block {block}: {struct.unpack_from('<IIQ', found)}, not version {version}; pending {pending}")


# MARK: rounds

kinds = [
    (blocks, look_blocks), (database("WAL"), look_database), (repository, look_repository), (database("DELETE"), look_database),
    (files(0), look_files),
]


def one_round(seed, generator):
    """Starts clients, kills in the middle, mounts again, and looks. Returns what the next round looks at once more."""
    clients = []
    if full:
        # In some rounds there is no space for what the clients do.
        adjust_ballast(seed << 32, 99 if seed % 3 == 0 else 90)
        clients.append((Client(f"s{seed}-0", overwriting(seed)), look_ballast))
    clients += [(Client(f"s{seed}-{which}", files(seed * 10 + which)), look_files) for which in (1, 2)]
    body, look = kinds[seed % len(kinds)]
    clients.append((Client(f"s{seed}-3", body), look))
    # From the first acknowledgement on: on a busy machine programs take their time to start. In a full store some may never get to it.
    end = time.monotonic() + (3 if full else 30)
    while time.monotonic() < end and not all(client.lines() for client, _ in clients): time.sleep(0.005)
    time.sleep(generator.random() ** 2 * 0.7)
    shares.append(used_share())
    if generator.random() < 0.15:
        # In the middle of an unmount; the clients' next names lead to the empty directory below.
        subprocess.run(["fusermount3", "-uz", mount_point], capture_output=True)
        for client, _ in clients: client.end()
        time.sleep(generator.random() * 0.03)
        kill_owner("unmounting")
        for client, _ in clients: os.waitpid(client.pid, 0)
    else:
        kill_owner("serving")
        for client, _ in clients: client.wait()
    start(generator)
    for client, look in clients:
        look(client)
        if look is look_ballast:
            # Databases and repositories write when they are looked at.
            before = used_share()
            for number in sorted(ballast)[:8]: remove_ballast(number)
            wait_free(before - 4)
    return clients


def main():
    rounds = 0
    previous = []
    os.makedirs(mount_point, exist_ok=True)
    seed = first
    start(random.Random(first))
    try:
        while kills < count:
            generator = random.Random(seed)
            clients = one_round(seed, generator)
            for client, look in previous:
                if look is look_files: look(client)
                if os.path.isdir(client.place): shutil.rmtree(client.place)
            previous = clients
            rounds += 1
            seed += 1
            # On a full store mostly after each kill: sometimes a kill follows a kill.
            if rounds % 20 == 0 or full and generator.random() < 0.8:
                stop()
                check()
                start(random.Random(seed))
        stop()
        check()
    except Wrong as wrong:
        print(f"seed {seed}, after {kills} kills: {wrong}")
        sys.exit(1)
    print(f"{kills} kills in {rounds} rounds, {acknowledged} operations acknowledged; killed while " +
          ", ".join(f"{what}: {number}" for what, number in when.items()))
    if full: print(f"{refused} operations found no space; {min(shares):.0f} to {max(shares):.0f} % were in use at a kill, {sorted(shares)[len(shares) // 2]:.0f} % as a rule")
    if acknowledged == 0:
        print("nothing was acknowledged, so nothing was tested")
        sys.exit(1)


sys.stdout.reconfigure(line_buffering=True)
main()
