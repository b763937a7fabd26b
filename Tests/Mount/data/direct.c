// Asynchronous direct writes of 8 KiB, while two threads read the same bytes through the kernel's cache. Fails when a read after the
// completion does not bring what was written.
//   direct FILE ROUNDS

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 8192, PLACES = 64 };
static int cached;
static volatile int is_over;
static volatile uint64_t place;

static void *read_on(void *nothing) {
    char bytes[SIZE];
    while (!is_over)
        if (pread(cached, bytes, SIZE, place) != SIZE) _exit(2);
    return nothing;
}

int main(int count, char **words) {
    if (count != 3) return 2;
    int rounds = atoi(words[2]), direct, stale = 0;
    char *bytes = aligned_alloc(4096, SIZE), found[SIZE];
    aio_context_t context = 0;
    pthread_t threads[2];
    cached = open(words[1], O_RDWR | O_CREAT, 0600);
    direct = open(words[1], O_RDWR | O_DIRECT);
    if (cached < 0 || direct < 0 || ftruncate(cached, PLACES * SIZE) || syscall(SYS_io_setup, 1, &context)) return 2;
    for (int number = 0; number < 2; number++)
        if (pthread_create(&threads[number], NULL, read_on, NULL)) return 2;
    for (int round = 1; round <= rounds; round++) {
        place = rand() % PLACES * SIZE;
        for (int offset = 0; offset < SIZE; offset += sizeof round) memcpy(bytes + offset, &round, sizeof round);
        struct iocb call = {
            .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = direct, .aio_buf = (uintptr_t)bytes, .aio_nbytes = SIZE, .aio_offset = place};
        struct iocb *calls = &call;
        struct io_event event;
        if (syscall(SYS_io_submit, context, 1, &calls) != 1 || syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1) return 2;
        if (event.res != SIZE || pread(cached, found, SIZE, place) != SIZE) return 2;
        stale += memcmp(bytes, found, SIZE) != 0;
    }
    is_over = 1;
    for (int number = 0; number < 2; number++) pthread_join(threads[number], NULL);
    printf("%d of %d reads brought old bytes\n", stale, rounds);
    return stale > 0;
}
