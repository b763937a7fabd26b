// Linux calls that Swift's Glibc leaves out because it is built without _GNU_SOURCE. Device/, FuseServer/ and Command/ import this.
#ifndef TREERING_CLINUX_H
#define TREERING_CLINUX_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

extern ssize_t pwritev2(int, const struct iovec *, int, off_t, int);
extern int fallocate(int, int, off_t, off_t);
extern int pthread_setname_np(pthread_t, const char *);
// Swift marks fork(2) unavailable: in the child only the calling thread lives on.
extern pid_t linux_fork(void) __asm__("fork");
extern int syncfs(int);
extern ssize_t process_vm_readv(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long, unsigned long);
extern long syscall(long, ...);
extern int pipe2(int *, int);
extern ssize_t getxattr(const char *, const char *, void *, size_t);
extern int fsetxattr(int, const char *, const void *, size_t, int);
extern int linux_flock(int, int) __asm__("flock");
extern int linux_memfd_create(const char *, unsigned) __asm__("memfd_create");

/// Mounts what is mounted at `from` also at `to`: on top, or below the topmost mount there (Linux 6.5). Returns 0, or -1 with errno.
/// open_tree(2) and move_mount(2) by number: C libraries of before 2022 do not have them.
static inline int linux_move_mount(const char *from, const char *to, int beneath) {
    const long open_tree = 428, move_mount = 429;
    const unsigned clone = 1, empty_path = 4, move_beneath = 0x200;
    long tree = syscall(open_tree, AT_FDCWD, from, clone | O_CLOEXEC);
    if (tree < 0) return -1;
    long result = syscall(move_mount, (int)tree, "", AT_FDCWD, to, empty_path | (beneath ? move_beneath : 0));
    int error = errno;
    close((int)tree);
    errno = error;
    return (int)result;
}

/// Sends a message, and a descriptor unless it is -1, over a socket that keeps messages apart. Returns 0, or -1 with errno.
static inline int linux_send(int socket, const void *bytes, size_t count, int descriptor) {
    struct iovec vector = {(void *)bytes, count};
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (descriptor >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)count ? 0 : -1;
}

/// Receives such a message; `*descriptor` is -1 where it brings none. Returns its length (0: the other end is closed), or -1 with errno.
static inline ssize_t linux_receive(int socket, void *bytes, size_t count, int *descriptor) {
    struct iovec vector = {bytes, count};
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *descriptor = -1;
    ssize_t result = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = result < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(descriptor, CMSG_DATA(header), sizeof *descriptor);
    return result;
}

/// A descriptor that polls as readable when a process is gone (pidfd_open(2), Linux 5.3), or -1 with errno.
static inline int linux_open_process(int process) { return (int)syscall(434, process, 0); }

/// Mounts the directory of all FUSE connections nowhere and opens it, or -1 with errno. fsopen(2), fsconfig(2), fsmount(2), Linux 5.2.
static inline int linux_mount_fusectl(void) {
    const long fsopen = 430, fsconfig = 431, fsmount = 432;
    const unsigned close_on_exec = 1, create = 6;
    long context = syscall(fsopen, "fusectl", close_on_exec);
    if (context < 0) return -1;
    long result = syscall(fsconfig, (int)context, create, NULL, NULL, 0);
    if (result == 0) result = syscall(fsmount, (int)context, close_on_exec, 0);
    close((int)context);
    return (int)result;
}

/// The name of this thread as `ps -o comm` and `top` show it: 15 bytes (prctl(2), which is variadic).
static inline void linux_set_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

// include/uapi/linux/fs.h, fcntl.h, falloc.h
enum {
    LINUX_RWF_DSYNC = 0x2,
    LINUX_FALLOCATE_KEEP_SIZE = 0x1,
    LINUX_FALLOCATE_PUNCH_HOLE = 0x2,
    LINUX_MADVISE_POPULATE_WRITE = 23,
    LINUX_LOCK_EXCLUSIVE = 2,
    LINUX_LOCK_NONBLOCKING = 4,
};

// O_DIRECT and O_TMPFILE differ between architectures; the double-underscored names are always there.
static const int linux_o_direct = __O_DIRECT;
static const int linux_o_tmpfile = __O_TMPFILE;

// include/uapi/linux/stat.h: struct statx, 256 bytes; only the fields that are read here have names.
struct linux_statx {
    uint32_t mask;
    uint8_t other[148];
    uint32_t dio_memory_alignment;
    uint32_t dio_offset_alignment;
    uint64_t spare[12];
};
_Static_assert(sizeof(struct linux_statx) == 256, "struct statx");
extern int linux_statx_call(int, const char *, int, unsigned, struct linux_statx *) __asm__("statx");

/// The alignments that direct I/O on an open file needs, in bytes; both 0 where it is impossible.
/// Returns 0, or -1 where the file system does not say.
static inline int linux_direct_alignment(int descriptor, uint32_t *memory, uint32_t *offset) {
    const int empty_path = 0x1000;
    const unsigned dioalign = 0x2000;
    struct linux_statx result;
    memset(&result, 0, sizeof result);
    if (linux_statx_call(descriptor, "", empty_path, dioalign, &result) != 0 || !(result.mask & dioalign)) return -1;
    *memory = result.dio_memory_alignment;
    *offset = result.dio_offset_alignment;
    return 0;
}

// include/uapi/linux/fs.h: flags of a file, and include/uapi/linux/magic.h.
#include <sys/ioctl.h>
#include <sys/vfs.h>
enum { LINUX_NOCOW_FLAG = 0x00800000, LINUX_BTRFS = 0x9123683E, LINUX_OVERLAY = 0x794C7630 };

/// Whether a directory lies on a file system that writes to new places what is overwritten, as far as a file does not say otherwise.
static inline int linux_may_copy_on_write(int directory) {
    struct statfs status;
    if (fstatfs(directory, &status) != 0) return 0;
    return (unsigned)status.f_type == (unsigned)LINUX_BTRFS || (unsigned)status.f_type == (unsigned)LINUX_OVERLAY;
}

/// Has an empty file overwritten in place, where its file system knows that.
static inline void linux_overwrite_in_place(int descriptor) {
    int flags = 0;
    if (ioctl(descriptor, _IOR('f', 1, long), &flags) != 0) return;
    flags |= LINUX_NOCOW_FLAG;
    ioctl(descriptor, _IOW('f', 2, long), &flags);
}

/// Whether a file on btrfs is written to new places when it is overwritten.
static inline int linux_is_copied_on_write(int descriptor) {
    struct statfs status;
    int flags = 0;
    if (fstatfs(descriptor, &status) != 0 || (unsigned)status.f_type != (unsigned)LINUX_BTRFS) return 0;
    return ioctl(descriptor, _IOR('f', 1, long), &flags) == 0 && !(flags & LINUX_NOCOW_FLAG);
}

/// getrlimit and setrlimit with plain numbers (the enumeration does not import everywhere).
static inline uint64_t linux_memory_lock_limit(void) {
    struct rlimit limit;
    return getrlimit((__rlimit_resource_t)8, &limit) == 0 ? (uint64_t)limit.rlim_cur : 0;
}

/// Raises a soft limit to the hard one; returns the limit then in force, all ones: none.
static inline uint64_t linux_raise_limit(int resource) {
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) != 0) return UINT64_MAX;
    if (limit.rlim_cur != limit.rlim_max) {
        struct rlimit raised = limit;
        raised.rlim_cur = limit.rlim_max;
        if (setrlimit((__rlimit_resource_t)resource, &raised) == 0) limit = raised;
    }
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit.rlim_cur;
}
enum {
    LINUX_LIMIT_CPU = 0, LINUX_LIMIT_FILE_SIZE = 1, LINUX_LIMIT_DATA = 2, LINUX_LIMIT_LOCKED = 8, LINUX_LIMIT_ADDRESSES = 9,
};

extern int pthread_setattr_default_np(const pthread_attr_t *);
extern int pthread_getattr_default_np(pthread_attr_t *);

/// Gives threads that are made from here on stacks of at least this size, whatever `ulimit -s` says.
static inline void linux_raise_thread_stack(size_t wanted) {
    pthread_attr_t attributes;
    size_t size = 0;
    if (pthread_getattr_default_np(&attributes) != 0) return;
    if (pthread_attr_getstacksize(&attributes, &size) == 0 && size < wanted &&
        pthread_attr_setstacksize(&attributes, wanted) == 0)
        pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
}

/// Raises the soft limit of open files to `wanted` as far as the hard limit allows; returns the limit then in force.
static inline uint64_t linux_raise_file_limit(uint64_t wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    if (limit.rlim_cur < wanted) {
        struct rlimit raised = limit;
        raised.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
    }
    return (uint64_t)limit.rlim_cur;
}

#endif
