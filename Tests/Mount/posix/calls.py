# System calls as the kernel answers them: a result of 0 or more, or a negative errno; bytes where the call fills a buffer.
# Nothing here raises, so that a test can say what a call has to give, errors included.
import ctypes
import errno
import os
import stat as modes
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

X86 = os.uname().machine == "x86_64"
# Numbers by name: x86_64's, and those of the machines that share the generic table (aarch64, riscv64).
NUMBERS = {
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "getdents64": (217, 61),
    "renameat2": (316, 276), "statx": (332, 291), "copy_file_range": (326, 285), "fallocate": (285, 47),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "preadv2": (327, 286), "pwritev2": (328, 287),
    "sync_file_range": (277, 84), "fchmodat2": (452, 452), "utimensat": (280, 88), "execveat": (322, 281),
}

AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x200, 0x400, 0x1000
AT_EACCESS = 0x200
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE = 1, 2, 8, 16, 32, 64
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
O_TMPFILE = 0o20000000 | os.O_DIRECTORY
SEEK_DATA, SEEK_HOLE = 3, 4
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_GETVERSION = 0x80086601, 0x40086602, 0x80087601
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_IOC_FIEMAP, FIFREEZE, FITRIM = 0x801C581F, 0x401C5820, 0xC020660B, 0xC0045877, 0xC0185879
FICLONE, FICLONERANGE, FIONREAD, FIGETBSZ = 0x40049409, 0x4020940D, 0x541B, 2
FS_IMMUTABLE, FS_APPEND, FS_NODUMP, FS_NOATIME = 0x10, 0x20, 0x40, 0x80
RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND = 2, 4, 8, 16


def raw(name, *arguments):
    """A system call by name; integers, bytes and ctypes objects are passed as they are."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name][0 if X86 else 1]), *passed)
    return -ctypes.get_errno() if result < 0 else result


def encoded(path):
    return os.fsencode(path) if isinstance(path, str) else path


def attempt(function, *arguments, **named):
    """A function of `os`: what it returns (0 for None), or the negative errno."""
    try:
        result = function(*arguments, **named)
        return 0 if result is None else result
    except OSError as error:
        return -error.errno
    except ValueError:
        return -errno.EINVAL
    except OverflowError:
        return -errno.EOVERFLOW


def through_libc(name, *arguments):
    result = getattr(libc, name)(*arguments)
    return -ctypes.get_errno() if result < 0 else result


# Files.
def open_(path, flags=os.O_RDONLY, mode=0o666, at=None): return attempt(os.open, path, flags, mode, dir_fd=at)
def close(fd): return attempt(os.close, fd)
def read(fd, count): return attempt(os.read, fd, count)
def write(fd, data): return attempt(os.write, fd, data)
def pread(fd, count, offset): return attempt(os.pread, fd, count, offset)
def pwrite(fd, data, offset): return attempt(os.pwrite, fd, data, offset)
def lseek(fd, offset, whence=0): return attempt(os.lseek, fd, offset, whence)
def ftruncate(fd, size): return attempt(os.ftruncate, fd, size)
def truncate(path, size): return attempt(os.truncate, path, size)
def fsync(fd): return attempt(os.fsync, fd)
def fdatasync(fd): return attempt(os.fdatasync, fd)
def fallocate(fd, mode, offset, length): return raw("fallocate", fd, mode, offset, length)
def pwritev2(fd, data, offset, flags):
    vector = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
    return raw("pwritev2", fd, vector, 1, offset, 0, flags)


def copy_file_range(fd_in, offset_in, fd_out, offset_out, count, flags=0):
    """Offsets may be None (the descriptors' own)."""
    places = [None if o is None else ctypes.byref(ctypes.c_longlong(o)) for o in (offset_in, offset_out)]
    return raw("copy_file_range", fd_in, places[0], fd_out, places[1], ctypes.c_size_t(count), flags)


# Names.
def mkdir(path, mode=0o777): return attempt(os.mkdir, path, mode)
def rmdir(path): return attempt(os.rmdir, path)
def unlink(path): return attempt(os.unlink, path)
def link(old, new, flags=0): return through_libc("linkat", AT_FDCWD, encoded(old), AT_FDCWD, encoded(new), flags)
def linkat(old_at, old, new_at, new, flags): return through_libc("linkat", old_at, encoded(old), new_at, encoded(new), flags)
def symlink(target, path): return attempt(os.symlink, target, path)
def readlink(path): return attempt(os.readlink, encoded(path))
def rename(old, new): return attempt(os.rename, old, new)
def renameat2(old, new, flags): return raw("renameat2", AT_FDCWD, encoded(old), AT_FDCWD, encoded(new), flags)
def mknod(path, mode=modes.S_IFREG | 0o666, device=0): return attempt(os.mknod, path, mode, device)
def mkfifo(path, mode=0o666): return attempt(os.mkfifo, path, mode)
def unlinkat(at, path, flags): return through_libc("unlinkat", at, encoded(path), flags)
def chdir(path): return attempt(os.chdir, path)


def listdir(path):
    names = attempt(os.listdir, path)
    return sorted(names) if isinstance(names, list) else names


# Attributes.
def stat(path): return attempt(os.stat, path)
def lstat(path): return attempt(os.lstat, path)
def fstat(fd): return attempt(os.fstat, fd)
def chmod(path, mode): return attempt(os.chmod, path, mode)
def fchmod(fd, mode): return attempt(os.fchmod, fd, mode)
def chown(path, uid, gid): return attempt(os.chown, path, uid, gid)
def lchown(path, uid, gid): return attempt(os.lchown, path, uid, gid)
def fchown(fd, uid, gid): return attempt(os.fchown, fd, uid, gid)
def fchmodat2(at, path, mode, flags): return raw("fchmodat2", at, encoded(path), mode, flags)
def access(path, mode, flags=0): return through_libc("faccessat", AT_FDCWD, encoded(path), mode, flags)
def statfs(path): return attempt(os.statvfs, path)


def utimensat(path, atime, mtime, flags=0, at=AT_FDCWD):
    """Times are (seconds, nanoseconds); path None means the descriptor `at`; both times None means now."""
    times = None if atime is None else (ctypes.c_longlong * 4)(*atime, *mtime)
    return raw("utimensat", at, None if path is None else encoded(path), times, flags)


class Statx(ctypes.Structure):
    class Time(ctypes.Structure):
        _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_uint32), ("pad", ctypes.c_int32)]
        @property
        def ns(self): return self.sec * 1_000_000_000 + self.nsec
    _fields_ = [
        ("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32), ("attributes", ctypes.c_uint64), ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32), ("mode", ctypes.c_uint16), ("pad1", ctypes.c_uint16),
        ("ino", ctypes.c_uint64), ("size", ctypes.c_uint64), ("blocks", ctypes.c_uint64), ("attributes_mask", ctypes.c_uint64),
        ("atime", Time), ("btime", Time), ("ctime", Time), ("mtime", Time), ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32), ("dev_major", ctypes.c_uint32), ("dev_minor", ctypes.c_uint32),
        ("mnt_id", ctypes.c_uint64), ("more", ctypes.c_uint64 * 13)]


def statx(path, flags=0, mask=0xFFF, at=AT_FDCWD):
    buffer = Statx()
    result = raw("statx", at, encoded(path), flags, mask, ctypes.byref(buffer))
    return buffer if result == 0 else result


# Extended attributes.
def getxattr(path, name, follow=True): return attempt(os.getxattr, path, name, follow_symlinks=follow)
def setxattr(path, name, value, flags=0, follow=True): return attempt(os.setxattr, path, name, value, flags, follow_symlinks=follow)
def removexattr(path, name, follow=True): return attempt(os.removexattr, path, name, follow_symlinks=follow)


def listxattr(path, follow=True):
    names = attempt(os.listxattr, path, follow_symlinks=follow)
    return sorted(names) if isinstance(names, list) else names


def getxattr_sized(path, name, size):
    """getxattr with a buffer of `size` bytes (0: only ask): the number it returns."""
    libc.getxattr.restype = ctypes.c_ssize_t
    result = libc.getxattr(encoded(path), encoded(name), ctypes.create_string_buffer(size) if size else None, ctypes.c_size_t(size))
    return -ctypes.get_errno() if result < 0 else result


def listxattr_sized(path, size):
    libc.listxattr.restype = ctypes.c_ssize_t
    result = libc.listxattr(encoded(path), ctypes.create_string_buffer(size) if size else None, ctypes.c_size_t(size))
    return -ctypes.get_errno() if result < 0 else result


# POSIX ACLs as the kernel takes them (include/uapi/linux/posix_acl_xattr.h).
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(*entries):
    """Entries are (tag, permissions) or (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", e[0], e[1], e[2] if len(e) > 2 else 0xFFFFFFFF) for e in entries)


def acl_entries(value):
    """The list of (tag, permissions[, id]), or what was given where it is no bytes."""
    if not isinstance(value, bytes):
        return value
    found = [struct.unpack_from("<HHI", value, offset) for offset in range(4, len(value), 8)]
    return [e if e[0] in (USER, GROUP) else e[:2] for e in found]


# ioctl, handles, locks.
def ioctl(fd, request, argument=0):
    libc.ioctl.argtypes = None
    passed = argument if not isinstance(argument, int) else ctypes.c_long(argument)
    return through_libc("ioctl", fd, ctypes.c_ulong(request), passed)


def get_flags(fd):
    value = ctypes.c_long(0)
    result = ioctl(fd, FS_IOC_GETFLAGS, ctypes.byref(value))
    return value.value & 0xFFFFFFFF if result == 0 else result


def set_flags(fd, flags): return ioctl(fd, FS_IOC_SETFLAGS, ctypes.byref(ctypes.c_long(flags)))
def add_flags(fd, flags): return set_flags(fd, max(get_flags(fd), 0) | flags)
def drop_flags(fd, flags): return set_flags(fd, max(get_flags(fd), 0) & ~flags)


def name_to_handle(path, flags=0, at=AT_FDCWD):
    """(mount id, the handle's bytes), or the error."""
    buffer = ctypes.create_string_buffer(8 + 128)
    struct.pack_into("<Ii", buffer, 0, 128, 0)
    mount = ctypes.c_int(0)
    result = raw("name_to_handle_at", at, encoded(path), buffer, ctypes.byref(mount), flags)
    return (mount.value, buffer.raw[:8 + struct.unpack_from("<I", buffer.raw)[0]]) if result == 0 else result


def open_by_handle(mount_fd, handle, flags=os.O_RDONLY):
    return raw("open_by_handle_at", mount_fd, ctypes.create_string_buffer(handle, len(handle)), flags)


class Directory:
    """A directory read with opendir(3) and its friends, for telldir and seekdir."""
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.readdir.argtypes = libc.closedir.argtypes = libc.telldir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
    libc.telldir.restype = ctypes.c_long
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

    def __init__(self, path):
        self.stream = libc.opendir(encoded(path))
        self.error = 0 if self.stream else -ctypes.get_errno()

    def next(self):
        """(name, d_type, d_ino), or None at the end."""
        entry = libc.readdir(self.stream)
        if not entry:
            return None
        inode, _, _, kind = struct.unpack("<QqHB", ctypes.string_at(entry, 19))
        return ctypes.string_at(entry + 19), kind, inode

    def rest(self):
        names = []
        while (entry := self.next()) is not None:
            names.append(entry[0])
        return names

    def tell(self): return libc.telldir(self.stream)
    def seek(self, place): libc.seekdir(self.stream, place)
    def rewind(self): libc.rewinddir(self.stream)
    def close(self): return libc.closedir(self.stream)
