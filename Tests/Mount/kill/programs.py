"""Clients that run SQLite, git or fio, and what must be there of their work after a kill."""
import os
import sqlite3
import struct
import subprocess

from client import is_refused, make_place
from settings import Wrong, full, work

git_environment = dict(
    os.environ, GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="gc.auto", GIT_CONFIG_VALUE_0="0", GIT_CONFIG_GLOBAL="/dev/null",
    GIT_CONFIG_SYSTEM="/dev/null", GIT_AUTHOR_NAME="t", GIT_AUTHOR_EMAIL="t@t", GIT_COMMITTER_NAME="t", GIT_COMMITTER_EMAIL="t@t")


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
    """Every transaction that was committed is there, and no half of one."""
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
    """The repository is sound, and the last commit that returned is in its history."""
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
        ["fio", f"--aux-path={work}", "--name=f", f"--directory={root}", "--size=4m", "--rw=randwrite", "--bs=4k", "--verify=crc32c",
         "--thread", "--do_verify=0", "--fallocate=none", "--ioengine=psync", "--time_based", "--runtime=30"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
