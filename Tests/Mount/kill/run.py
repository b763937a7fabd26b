"""Kills the serving process over and over under a mixed load and looks at what is there after each.

run.py TREERING ENGINE STORE MOUNTPOINT WORK FIRST COUNT [full]: kills with the seeds FIRST.. on a store that is not mounted,
and leaves it unmounted. In each round two clients make, write, rename, sync and remove files, one more runs fio, SQLite or git, and the
process dies at a random time of their work, of an unmount, or (again) of the mount that recovers. Clients log outside of the mount, after
each operation: what is in the log must be there.

With `full` the store is kept at nine tenths of its capacity by a ballast that is overwritten as well, and the cleaner is eager. ENOSPC is an
answer then: what got it has not happened.
"""
import os
import random
import shutil
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from ballast import adjust_ballast, ballast, look_ballast, overwriting, remove_ballast, used_share, wait_free  # noqa: E402
from client import Client  # noqa: E402
from files import files, look_files  # noqa: E402
from mount import check, kill_owner, start, stop  # noqa: E402
from programs import blocks, database, look_blocks, look_database, look_repository, repository  # noqa: E402
from settings import Tally, Wrong, count, first, full, mount_point  # noqa: E402

# What the third client of a round does, in turn.
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
    Tally.shares.append(used_share())
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
    """Kills until there have been enough; exits with 1 where something is wrong."""
    rounds = 0
    previous = []
    os.makedirs(mount_point, exist_ok=True)
    seed = first
    start(random.Random(first))
    try:
        while Tally.kills() < count:
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
        print(f"seed {seed}, after {Tally.kills()} kills: {wrong}")
        sys.exit(1)
    died = ", ".join(f"{what}: {number}" for what, number in Tally.when.items())
    print(f"{Tally.kills()} kills in {rounds} rounds, {Tally.acknowledged} operations acknowledged; killed while {died}")
    if full:
        print(f"{Tally.refused} operations found no space; {min(Tally.shares):.0f} to {max(Tally.shares):.0f} % were in use at a kill, "
              f"{statistics.median_high(Tally.shares):.0f} % as a rule")
    if Tally.acknowledged == 0:
        print("nothing was acknowledged, so nothing was tested")
        sys.exit(1)


sys.stdout.reconfigure(line_buffering=True)
main()
