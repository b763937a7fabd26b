// Reads at random places of a file, many at a time, until the file system gives an error or this process is killed.
//   ends FILE FLIGHT THREADS    FLIGHT asynchronous direct reads of 64 KiB, and THREADS threads that touch pages of a mapping, whose reads the
//                               kernel does not count; a byte on standard output when some are done
// Exits 0 when the mount is gone, 1 when a read brought what was not written.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK = 4096, SIZE = 16 * BLOCK, SOME = 20 };
static int file, done;
static uint64_t blocks;
static const char *mapping;

static uint64_t place_of_next(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state % (blocks - SIZE / BLOCK) * BLOCK;
}

// Each block says where it lies.
static void verify(const char *bytes, uint64_t place, int size) {
    for (int offset = 0; offset < size; offset += BLOCK) {
        uint64_t found;
        memcpy(&found, bytes + offset, sizeof found);
        if (found != place + offset) _exit(1);
    }
    if (__atomic_add_fetch(&done, 1, __ATOMIC_RELAXED) == SOME && write(1, "x", 1) != 1) _exit(2);
}

static void *touch(void *number) {
    uint64_t state = (uintptr_t)number * 0x9E3779B97F4A7C15ull;
    for (;;) {
        uint64_t place = place_of_next(&state);
        verify(mapping + place, place, BLOCK);
    }
}

static void end(int number) { _exit(number == SIGBUS ? 0 : 2); }

int main(int count, char **words) {
    if (count != 4) return 2;
    int flight = atoi(words[2]), threads = atoi(words[3]), under_way = 0;
    struct stat status;
    aio_context_t context = 0;
    file = open(words[1], O_RDONLY | O_DIRECT);
    if (file < 0 || fstat(file, &status) || (flight && syscall(SYS_io_setup, flight, &context))) return 2;
    blocks = status.st_size / BLOCK;
    mapping = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (mapping == MAP_FAILED || madvise((void *)mapping, status.st_size, MADV_RANDOM) || signal(SIGBUS, end) == SIG_ERR) return 2;
    pthread_t all[threads + 1];
    for (int number = 0; number < threads; number++)
        if (pthread_create(&all[number], NULL, touch, (void *)(uintptr_t)(getpid() * 1000ul + number + 1))) return 2;
    uint64_t state = getpid() * 0x9E3779B97F4A7C15ull + 1;
    char *memory = aligned_alloc(BLOCK, (size_t)(flight + 1) * SIZE);
    struct iocb *calls = calloc(flight + 1, sizeof *calls);
    struct io_event *events = calloc(flight + 1, sizeof *events);
    int *idle = calloc(flight + 1, sizeof *idle), idle_count = flight, is_over = 0;
    for (int place = 0; place < flight; place++) idle[place] = place;
    while (!is_over || under_way) {
        while (!is_over && idle_count > 0) {
            int place = idle[--idle_count];
            struct iocb *call = &calls[place];
            memset(call, 0, sizeof *call);
            call->aio_lio_opcode = IOCB_CMD_PREAD;
            call->aio_fildes = file;
            call->aio_buf = (uint64_t)(uintptr_t)(memory + (size_t)place * SIZE);
            call->aio_nbytes = SIZE;
            call->aio_offset = place_of_next(&state);
            call->aio_data = place;
            if (syscall(SYS_io_submit, context, 1, &call) == 1) under_way++;
            else is_over = 1;
        }
        if (!under_way) break;
        long ended = syscall(SYS_io_getevents, context, 1, flight, events, NULL);
        if (ended < 0 && errno == EINTR) continue;
        if (ended < 0) return 2;
        for (long number = 0; number < ended; number++) {
            int place = events[number].data;
            under_way--;
            idle[idle_count++] = place;
            if (events[number].res == SIZE) verify(memory + (size_t)place * SIZE, calls[place].aio_offset, SIZE);
            else is_over = 1;
        }
    }
    for (int number = 0; number < threads; number++) pthread_join(all[number], NULL);
    return 0;
}
