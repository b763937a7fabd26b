#!/bin/bash
# How many times the serving process allocates memory for an operation, counted by a library in front of malloc(3), so that what was got rid of
# does not come back. One of them is libfuse's, for the request.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3 gcc
S=$WORK/store
M=$WORK/mnt
cat >"$WORK/counter.c" <<'C'
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static uint64_t spare, *count = &spare;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("ALLOCATIONS"), O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED : mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) _exit(99);
    close(fd);
    count = page;
}
static void note(void) { __atomic_add_fetch(count, 1, __ATOMIC_RELAXED); }
void *malloc(size_t size) { return note(), __libc_malloc(size); }
void *calloc(size_t number, size_t size) { return note(), __libc_calloc(number, size); }
void *realloc(void *old, size_t size) { return note(), __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { return note(), __libc_memalign(alignment, size); }
int posix_memalign(void **place, size_t alignment, size_t size) {
    note();
    *place = __libc_memalign(alignment, size);
    return *place ? 0 : ENOMEM;
}
C
check "the counter" gcc -O2 -shared -fPIC -o "$WORK/counter.so" "$WORK/counter.c" || finish
head -c 4096 /dev/zero >"$WORK/count"
cat >"$WORK/count.py" <<'P'
import mmap, os, struct, sys
memory = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
os.chdir(sys.argv[1])
allocations = lambda: struct.unpack("Q", memory[:8])[0]
COUNT = 400
block, large = os.urandom(4096), os.urandom(1 << 20)
files = {name: os.open(name, os.O_CREAT | os.O_RDWR) for name in ("file", "large")}
failed = False

def measure(name, limit, operation, count=COUNT):
    global failed
    operation(0)
    before = allocations()
    for number in range(1, count + 1): operation(number)
    each = (allocations() - before) / count
    print(f"    {name}: {each:.2f}, at most {limit}")
    if each == 0 or each > limit:
        failed = True
        print(f"    that is {'none' if each == 0 else 'more'}")

def missing(number):
    try: os.stat(f"none{number}")
    except FileNotFoundError: pass

def durable(number):
    os.pwrite(files["file"], block, number * 37 % COUNT * 4096)
    os.fdatasync(files["file"])

measure("create and close", 5, lambda n: os.close(os.open(f"c{n}", os.O_CREAT | os.O_WRONLY)))
measure("write of 4 KiB at the end", 3, lambda n: os.pwrite(files["file"], block, n * 4096))
measure("write of 4 KiB again", 5, lambda n: os.pwrite(files["file"], block, n * 37 % COUNT * 4096))
measure("write of 4 KiB and fdatasync", 15, durable)
measure("write of 1 MiB", 8, lambda n: os.pwrite(files["large"], large, n << 20), 30)
target = mmap.mmap(-1, 1 << 20)
direct = {name: os.open(name, os.O_RDONLY | os.O_DIRECT) for name in files}
measure("read of 4 KiB", 14, lambda n: os.preadv(direct["file"], [memoryview(target)[:4096]], n * 37 % COUNT * 4096))
measure("read of 1 MiB", 16, lambda n: os.preadv(direct["large"], [target], n << 20), 30)
measure("chmod", 2, lambda n: os.chmod("file", 0o600 + n % 8))
measure("setxattr", 2, lambda n: os.setxattr("file", "user.a", b"%d" % n))
measure("getxattr", 3, lambda n: os.getxattr("file", "user.a"))
measure("look-up of what is not there", 2, missing)
measure("statfs", 2, lambda n: os.statvfs("."))
measure("rename", 5, lambda n: os.rename(f"c{n}", f"r{n}"))
measure("link", 5, lambda n: os.link(f"r{n}", f"l{n}"))
measure("symlink", 5, lambda n: os.symlink("target", f"s{n}"))
measure("readlink", 5, lambda n: os.readlink(f"s{n}"))
measure("mkdir", 5, lambda n: os.mkdir(f"d{n}"))
measure("unlink", 4, lambda n: os.unlink(f"l{n}"))
measure("rmdir", 5, lambda n: os.rmdir(f"d{n}"))
sys.exit(failed)
P
ALLOCATIONS=$WORK/count LD_PRELOAD=$WORK/counter.so start_mount "$S" "$M"
python3 "$WORK/count.py" "$M" "$WORK/count" && pass || fail "an operation allocates more than it did, or nothing is counted"
stop_mount "$S" "$M"
check_store "$S"
finish
