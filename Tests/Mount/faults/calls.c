// Stands before the system calls of a serving process and has some of them fail, on files of the store and on staging alone.
//   FAULT=CALL:KIND:FIRST:STEP   the FIRST call of that kind, and every STEP further ones (0: none). KIND is an error's name, or SHORT: half of it.
//   FAULT_STORE=DIRECTORY        FAULT_HITS=FILE: one byte is added for each.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static char call[32], kind[32], store[4096];
static long first, step, count;
static int hits = -1;

static const struct { const char *name; int number; } errors[] = {
    {"EIO", EIO}, {"EINTR", EINTR}, {"EAGAIN", EAGAIN}, {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM}, {"EOPNOTSUPP", EOPNOTSUPP},
    {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"EDQUOT", EDQUOT}, {"EINVAL", EINVAL}, {"EROFS", EROFS}, {0, 0}};

__attribute__((constructor)) static void begin(void) {
    const char *fault = getenv("FAULT"), *place = getenv("FAULT_STORE"), *file = getenv("FAULT_HITS");
    if (!fault || !place || !file || sscanf(fault, "%31[^:]:%31[^:]:%ld:%ld", call, kind, &first, &step) != 4) _exit(99);
    snprintf(store, sizeof store, "%s", place);
    hits = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int is_ours(int fd) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, store, strlen(store)) || !strncmp(path, "/dev/shm/treering-", 18);
}

// 0: go on; -1: fail, errno is set; 1: do half of it.
static int fault(const char *name, int fd) {
    if (strcmp(name, call) || !is_ours(fd)) return 0;
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
    if (number < first || (step ? (number - first) % step : number != first)) return 0;
    if (write(hits, "x", 1) != 1) _exit(98);
    if (!strcmp(kind, "SHORT")) return 1;
    for (int place = 0; errors[place].name; place++)
        if (!strcmp(errors[place].name, kind)) {
            errno = errors[place].number;
            return -1;
        }
    _exit(97);
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

// Half of some vectors, in whole blocks where the host wants that: into at most two; how many, 0 when it cannot be less.
static int half(int fd, const struct iovec *vectors, int number, struct iovec *shorter) {
    size_t total = 0;
    for (int place = 0; place < number; place++) total += vectors[place].iov_len;
    size_t left = fcntl(fd, F_GETFL) & O_DIRECT ? total / 2 / 4096 * 4096 : total / 2;
    int used = 0;
    for (int place = 0; place < number && left > 0 && used < 2; place++) {
        shorter[used] = vectors[place];
        if (shorter[used].iov_len > left) shorter[used].iov_len = left;
        left -= shorter[used++].iov_len;
    }
    return used;
}

#define TRANSFER(name, ...) \
    struct iovec shorter[2]; \
    int answer = fault(#name, fd), used; \
    if (answer < 0) return -1; \
    if (answer > 0 && (used = half(fd, vectors, number, shorter)) > 0) return real(fd, shorter, used, __VA_ARGS__); \
    return real(fd, vectors, number, __VA_ARGS__)

ssize_t preadv(int fd, const struct iovec *vectors, int number, off_t offset) {
    REAL(ssize_t, preadv, int, const struct iovec *, int, off_t);
    TRANSFER(preadv, offset);
}
ssize_t pwritev(int fd, const struct iovec *vectors, int number, off_t offset) {
    REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
    TRANSFER(pwritev, offset);
}
ssize_t pwritev2(int fd, const struct iovec *vectors, int number, off_t offset, int flags) {
    REAL(ssize_t, pwritev2, int, const struct iovec *, int, off_t, int);
    TRANSFER(pwritev2, offset, flags);
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return fault("fdatasync", fd) ? -1 : real(fd);
}
int fsync(int fd) {
    REAL(int, fsync, int);
    return fault("fsync", fd) ? -1 : real(fd);
}
int ftruncate(int fd, off_t length) {
    REAL(int, ftruncate, int, off_t);
    return fault("ftruncate", fd) ? -1 : real(fd, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
    REAL(int, fallocate, int, int, off_t, off_t);
    return fault("fallocate", fd) ? -1 : real(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length) {
    REAL(int, posix_fallocate, int, off_t, off_t);
    return fault("posix_fallocate", fd) ? errno : real(fd, offset, length);
}
int renameat(int from, const char *name, int to, const char *other) {
    REAL(int, renameat, int, const char *, int, const char *);
    return fault("renameat", from) ? -1 : real(from, name, to, other);
}
int unlinkat(int fd, const char *name, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    return fault("unlinkat", fd) ? -1 : real(fd, name, flags);
}
int openat(int fd, const char *name, int flags, ...) {
    REAL(int, openat, int, const char *, int, ...);
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fault("openat", fd) ? -1 : real(fd, name, flags, mode);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    REAL(void *, mmap, void *, size_t, int, int, int, off_t);
    return fd >= 0 && fault("mmap", fd) ? MAP_FAILED : real(address, length, protection, flags, fd, offset);
}
