"""The processes of a differential run: each makes its operations on both trees, and compares the answers."""
import collections
import marshal
import os
import signal
import socket
import struct
import traceback

import calls as c
import compare
import operations
import suite

# Where the arguments of a call are paths (the first one, unless it is said here), or slots of descriptors.
PATHS = {"link": (0, 1), "rename": (0, 1), "rename_directory": (0, 1), "renameat2": (0, 1), "symlink": (1,), "link_slot": (1,), "restore": (0,)}
BY_SLOT = {
    "close": (), "pwrite": (0,), "write": (0,), "pread": (0,), "read": (0,), "ftruncate": (0,), "fallocate": (0,), "copy": (0, 2),
    "copy_here": (0, 1),
    "fsync": (0,), "sendfile": (0, 1), "fchmod": (0,), "fchown": (0,), "futimens": (0,), "lseek": (), "seek_data": (), "lock": (), "flock": (),
    "flags": (0,), "umask": (),
}


class Actor:
    """A process with ids of its own, that makes its operations on both sides."""

    def __init__(self, number, roots, options):
        self.check_times, self.label = options.times, options.label
        self.near, far = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.near.close()
            try:
                self.serve(far, number, roots)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        far.close()

    def run(self, batch):
        """(how many were made, the difference or None, results by call and errno)."""
        send(self.near, batch)
        answer = receive(self.near)
        if answer is None:
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            return (0, f"the actor ended with status {status} in {batch}", {}, {})
        return answer

    def end(self):
        """Ends the process."""
        # Later actors have this channel too: closing it alone would not end it.
        c.attempt(send, self.near, [])
        self.near.close()
        if self.pid:
            os.waitpid(self.pid, 0)

    # In the process.

    def serve(self, far, number, roots):
        """Makes the operations that come, and sends back what came of them."""
        user = operations.ACTORS[number]
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.sides = [operations.Side(root, user.uid == 0) for root in roots]
        os.setgroups(list(user.groups))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        os.umask(0)
        while batch := receive(far):
            tally, explained = collections.Counter(), collections.Counter()
            difference, made = None, 0
            for index, operation in batch:
                difference, result = self.make(operation, explained)
                made += 1
                tally[result] += 1
                if difference:
                    difference = f"operation {index}: {operation}\n{difference}"
                    break
            send(far, (made, difference, dict(tally), dict(explained)))
        os._exit(0)

    def make(self, operation, explained):
        """(the difference or None, the result's name) of one operation, made on both sides."""
        call, arguments = operation[1], operation[2:]
        results, seen = [], []
        if call == "truncate" and "writeback_cache=on" in self.label and self.sides[0].enter() and os.path.isfile(arguments[0]) \
                and os.stat(arguments[0]).st_size == arguments[1]:
            explained["same size"] += 1
            return None, "left out"
        for side in self.sides:
            if not side.enter():
                return None, "shut out"
            before = self.look(side, call, arguments)
            results.append(getattr(side, "do_" + call)(*arguments))
            seen.append(self.changes(before, self.look(side, call, arguments)))
        outcome = "ok" if not isinstance(results[0], int) or results[0] >= 0 else suite.name_of(results[0])
        if results[0] != results[1]:
            reason = compare.explain(self.sides, operation, results)
            if reason is None:
                return f"    ext4: {suite.name_of(results[0])}\n    treering: {suite.name_of(results[1])}", outcome
            explained[reason] += 1
        if not self.same(operation, explained, *seen):
            return f"    result {suite.name_of(results[0])}; what it was done to, and which times moved:\n" \
                   f"    ext4: {seen[0]}\n    treering: {seen[1]}", outcome
        return None, outcome

    def same(self, operation, explained, a, b):
        """Whether what both sides show of an operation's files is the same, or explained."""
        for name, (known, moved) in a.items():
            if known != b[name][0]:
                return False
            # What was made anew may have got the old inode number on one side alone; then no time can be said to have moved.
            if moved != b[name][1] and None not in (moved, b[name][1]):
                reason = compare.times_explained(operation, known[0], (moved, b[name][1]), self.label)
                if reason is None:
                    return False
                explained[reason] += 1
        return True

    def look(self, side, call, arguments):
        """stat of all that the operation names, and of their directories."""
        found = {}
        if call in BY_SLOT and call != "link_slot":
            for position in BY_SLOT[call]:
                fd = side.slots[arguments[position]]
                found[f"slot {arguments[position]}"] = c.fstat(fd) if fd >= 0 else None
            return found
        for position in PATHS.get(call, (0,)):
            path = arguments[position]
            found[path] = c.lstat(path)
            parent = os.path.dirname(path.rstrip("/"))
            found[parent + "/"] = c.lstat(parent or ".")
        return found

    def changes(self, before, after):
        """What is known of each file afterwards, and which of its times moved."""
        answer = {}
        for name, now in after.items():
            then = before.get(name)
            known = compare.facts(now)
            moved = None
            if self.check_times and isinstance(then, os.stat_result) and isinstance(now, os.stat_result) and then.st_ino == now.st_ino:
                moved = "".join(letter for letter, field in (("a", "st_atime_ns"), ("m", "st_mtime_ns"), ("c", "st_ctime_ns"))
                                if letter in self.check_times and getattr(then, field) != getattr(now, field))
            answer[name] = (known, moved)
        return answer


def send(channel, value):
    """Sends a value with its length before it."""
    data = marshal.dumps(value)
    channel.sendall(struct.pack("<I", len(data)) + data)


def receive(channel):
    """The next value, or None at the end."""
    def exactly(count):
        data = b""
        while len(data) < count:
            part = channel.recv(count - len(data))
            if not part:
                return None
            data += part
        return data
    head = exactly(4)
    return None if head is None else marshal.loads(exactly(struct.unpack("<I", head)[0]))
