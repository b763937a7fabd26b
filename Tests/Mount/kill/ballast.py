"""The ballast that keeps a store nine tenths full, the client that overwrites it, and what its blocks must hold after a kill."""
import errno
import os
import random
import struct
import time

from client import attempt
from settings import Tally, Wrong, mount_point

ballast = {}
block_size, blocks_per_file = 16384, 64


def ballast_path(number):
    """Where a file of it lies."""
    return f"{mount_point}/ballast-{number}"


def ballast_block(number, block, version):
    """What a block holds: its file, its place, its version."""
    return struct.pack("<IIQ", number, block, version) * (block_size // 16)


def used_share():
    """How much of the store is in use, in percent."""
    state = os.statvfs(mount_point)
    return 100 * (state.f_blocks - state.f_bfree) / state.f_blocks


def remove_ballast(number):
    """Removes a file of it."""
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
    pending = None
    for words in client.lines():
        if words == ["ok"]:
            number, block, version = pending
            ballast[number][block] = version
            Tally.acknowledged += 1
        elif words == ["no"]: Tally.refused += 1
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
