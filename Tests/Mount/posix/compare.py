# Compares two trees, and the two answers to one operation. Every difference between ext4 and Treering that is let pass is named
# in EXPLAINED with its reason, and counted when it is met; docs/posix.md lists them too. Never compared at all, because POSIX
# leaves them to the file system: st_ino (only which names share one), st_dev, st_blocks, st_blksize, sizes of directories, the order
# of readdir, and the moment that "now" was.
import errno
import os
import stat
import time

import calls as c
from operations import BLOCK, digest, facts

EXPLAINED = {
    "trusted names": "listxattr without CAP_SYS_ADMIN: ext4 leaves out trusted.*, the kernel's FUSE client passes the server's list on whole",
    "directory positions": "lseek in a directory: positions are hashes on ext4, cookies on Treering; only what readdir gave may be used",
    "fifo times": "reading and writing a FIFO is the kernel's alone: it stamps the inode on ext4, and does not tell a FUSE server",
    "cached reads": "atime: what the kernel answers from its caches (pages, listings, targets of symlinks) it does not tell a FUSE server",
    "completed pages": "atime with the writeback cache: the kernel reads the rest of a page that write(2) fills in part, through the "
                       "writer's descriptor; where that is open for reading too, a server cannot tell it from a read",
    "equal attributes": "setxattr of the value that is there: ext4 does nothing, Treering logs it and moves ctime",
    "kernel's ctime": "FS_IOC_SETFLAGS with the writeback cache: the kernel shows the ctime that it keeps, and does not know of the ioctl's",
    "same size": "left out: truncate(2) to the size that a file has, with the writeback cache: the kernel then keeps the times that it has",
    "holes": "SEEK_DATA and SEEK_HOLE: what is a hole is the file system's to say; both answers are checked against the contents",
}


def explain(sides, operation, results):
    """The key of EXPLAINED that covers a difference, or None."""
    call, side = operation[1], sides[1]
    a, b = results
    if call == "listxattr" and not side.is_root and isinstance(a, list) and isinstance(b, list):
        return "trusted names" if [name for name in b if not name.startswith("trusted.")] == a else None
    if call in ("seek_data", "lseek") and stat.S_ISDIR(os.fstat(side.slots[operation[2]]).st_mode):
        return "directory positions"
    if call == "seek_data":
        return "holes" if valid_hole(sides, operation, a, b) else None
    return None


def times_explained(operation, mode, moved, label):
    """The key of EXPLAINED that covers times that moved on one side alone; `moved` says which did, on ext4 and on Treering."""
    if stat.S_ISFIFO(mode) and operation[1] in ("read", "write", "sendfile"):
        return "fifo times"
    if operation[1] == "flags" and moved == ("c", "") and "writeback_cache=on" in label:
        return "kernel's ctime"
    if operation[1] in ("setxattr", "setfacl") and moved == ("", "c"):
        return "equal attributes"
    return None


def valid_hole(sides, operation, a, b):
    """Whether Treering's answer fits the contents, and ext4's to the block."""
    _, _, slot, offset, whence = operation
    fds = [side.slots[slot] for side in sides]
    size = os.fstat(fds[1]).st_size
    end_a, end_b = (size if value == -errno.ENXIO else value for value in (a, b))
    if end_a < 0 or end_b < offset or end_b > size or offset >= size:
        return False
    if whence == c.SEEK_DATA:
        # All that was passed over is zeros.
        return all_zero(fds, offset, end_b)
    # A hole begins with zeros, or is the end. (ext4 has written zeros where Treering has shared a hole by copy_file_range.)
    return end_b == size or all_zero(fds, end_b, min(end_b // BLOCK * BLOCK + BLOCK, size))


def all_zero(fds, start, end):
    """Whether a range is zeros on both sides. Both are read, so that their atimes move alike."""
    end = min(end, start + (1 << 24))
    return all([is_zero(fd, start, end) for fd in fds])


def is_zero(fd, start, end):
    """Whether a descriptor reads zeros, or nothing, in a range."""
    place = start
    while place < end:
        data = c.pread(fd, min(1 << 20, end - place), place)
        if not isinstance(data, bytes):
            return is_zero_anew(fd, start, end)
        if not data or data.strip(b"\0"):
            return False
        place += len(data)
    return True


def is_zero_anew(fd, start, end):
    """The same for a descriptor that cannot read so. Where its user may not read the file, nothing can be said against an answer."""
    reader = c.attempt(os.open, f"/proc/self/fd/{fd}", os.O_RDONLY)
    if reader == -errno.EACCES:
        return True
    if reader < 0:
        return False
    try:
        return is_zero(reader, start, end)
    finally:
        os.close(reader)


# Trees.

def contents(fds, size):
    """Digests of regular files of one size, a list for each; of large files, of what is data in any of them."""
    if size <= 1 << 22:
        return [[(0, digest(os.pread(fd, size, 0)))] for fd in fds]
    parts = [[] for _ in fds]
    place = 0
    # One that knows no holes would have all of it read.
    maps = [fd for fd in fds if c.lseek(fd, 0, c.SEEK_HOLE) != size] or fds
    while place < size:
        # Asked once for all: what ext4 calls data in an unwritten extent changes with what its page cache holds.
        start = min([s for fd in maps if (s := c.lseek(fd, place, c.SEEK_DATA)) >= 0], default=size)
        start -= start % BLOCK
        if start >= size:
            break
        for fd, found in zip(fds, parts):
            data = os.pread(fd, 1 << 16, start)
            if data.strip(b"\0"):
                found.append((start, digest(data)))
        place = max(start, place) + (1 << 16) - max(start, place) % BLOCK
    return parts


def names_of(root):
    """All names of a tree, the tree itself included."""
    found = ["."]
    for base, directories, files in os.walk(root):
        below = os.path.relpath(base, root)
        found += [os.path.normpath(os.path.join(below, name)) for name in directories + files]
    return sorted(found)


def compare_trees(roots, started, explained, label):
    """The differences, as texts; those with a reason are counted in `explained`."""
    differences = []
    names = [names_of(root) for root in roots]
    if names[0] != names[1]:
        only = [sorted(set(names[0]) - set(names[1])), sorted(set(names[1]) - set(names[0]))]
        return [f"names: only on ext4 {only[0]}, only on treering {only[1]}"]
    inodes = {}
    for name in names[0]:
        paths = [os.path.join(root, name) for root in roots]
        infos = [os.lstat(path) for path in paths]
        known = [facts(info) for info in infos]
        if known[0] != known[1]:
            differences.append(f"{name}: stat {known[0]} on ext4, {known[1]} on treering")
        if inodes.setdefault(("ext4", infos[0].st_ino), infos[1].st_ino) != infos[1].st_ino or \
                inodes.setdefault(("treering", infos[1].st_ino), infos[0].st_ino) != infos[0].st_ino:
            differences.append(f"{name}: is linked to other names than on ext4")
        for field in () if stat.S_ISFIFO(infos[0].st_mode) else ("st_atime_ns", "st_mtime_ns", "st_ctime_ns"):
            a, b = (getattr(info, field) for info in infos)
            recent = [started <= time_ <= time.time_ns() + 1_000_000_000 for time_ in (a, b)]
            # Of two times that are both "now", mtime alone says when: ctime has been watched at each operation, and atime moves by
            # ext4's coarse clock and by what the kernel's caches let through.
            if a == b or all(recent) and (field != "st_mtime_ns" or abs(a - b) < 5_000_000_000):
                continue
            if field == "st_atime_ns" and recent[0]:
                explained["cached reads"] += 1
                continue
            if field == "st_atime_ns" and recent[1] and stat.S_ISREG(infos[1].st_mode) and "writeback_cache=on" in label:
                explained["completed pages"] += 1
                continue
            differences.append(f"{name} ({stat.filemode(infos[0].st_mode)}): {field} {a} on ext4, {b} on treering")
        differences += compare_details(name, paths, infos)
    return differences


def compare_details(name, paths, infos):
    """How extended attributes, targets and contents of one name differ."""
    differences = []
    attributes = [{key: c.getxattr(path, key, False) for key in listed if not key.startswith("security.selinux")}
                  if isinstance(listed := c.listxattr(path, False), list) else listed for path in paths]
    if attributes[0] != attributes[1]:
        differences.append(f"{name}: xattrs {attributes[0]} on ext4, {attributes[1]} on treering")
    if stat.S_ISLNK(infos[0].st_mode):
        targets = [os.readlink(path) for path in paths]
        if targets[0] != targets[1]:
            differences.append(f"{name}: links to {targets[0]} on ext4, {targets[1]} on treering")
    elif stat.S_ISREG(infos[0].st_mode) and infos[0].st_size == infos[1].st_size:
        fds = [os.open(path, os.O_RDONLY | os.O_NOATIME) for path in paths]
        data = contents(fds, infos[0].st_size)
        if data[0] != data[1]:
            differences.append(f"{name}: contents {data[0]} on ext4, {data[1]} on treering; first byte that differs: {first_difference(fds)}")
        for fd in fds:
            os.close(fd)
    return differences


def first_difference(fds):
    """The place of the first byte that differs between two descriptors, or None."""
    place = 0
    while place < 1 << 24:
        a, b = (os.pread(fd, 1 << 16, place) for fd in fds)
        if a != b:
            return place + next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        if not a:
            return None
        place += len(a)
    return None
