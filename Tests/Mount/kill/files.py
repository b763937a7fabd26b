"""Clients that make, write, rename and remove files, and what may be there of them after a kill."""
import os
import random

from client import attempt, make_place
from settings import Tally, Wrong


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
            Tally.acknowledged += 1
        elif words == ["no"]:
            pending = None
            Tally.refused += 1
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
