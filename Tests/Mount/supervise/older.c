// To be preloaded: a kernel that cannot be asked to send requests again (before Linux 6.9).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <unistd.h>
ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    const uint32_t *header = bytes;
    if (count == 16 && header[0] == 16 && header[1] == 7) { errno = EINVAL; return -1; }
    return next(fd, bytes, count);
}
