// The jobs of mount-scripts/bench that are system calls alone: worker JOB DIRECTORY COUNT PROCESSES. Prints the seconds that they took.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20], path[4096], other[4096], prefix[32];
static void check(int ok, const char *what) { if (!ok) { perror(what); _exit(1); } }

static void name(char *out, const char *dir, const char *prefix, int job, int i) {
    snprintf(out, sizeof path, "%s/%s%d-%d", dir, prefix, job, i);
}

static void durable(const char *dir, int job, int n) {
    name(path, dir, "log", job, 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    check(fd >= 0, path);
    for (int i = 0; i < n; i++) {
        check(write(fd, buffer, 4096) == 4096, "write");
        check(fdatasync(fd) == 0, "fdatasync");
    }
    check(close(fd) == 0, "close");
}

static void files(const char *dir, int job, int n) {
    for (int i = 0; i < n; i++) {
        name(path, dir, prefix, job, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        check(fd >= 0, path);
        check(write(fd, buffer, 4096) == 4096, "write");
        check(fsync(fd) == 0, "fsync");
        check(close(fd) == 0, "close");
    }
}

static void fork_jobs(void (*body)(const char *, int, int), const char *dir, int n, int jobs) {
    int status, bad = 0;
    for (int job = 0; job < jobs; job++) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0) { body(dir, job, n); _exit(0); }
    }
    for (int job = 0; job < jobs; job++) { wait(&status); bad |= status; }
    if (bad) exit(1);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    const char *what = argv[1], *dir = argv[2];
    int n = atoi(argv[3]), jobs = atoi(argv[4]);
    struct timespec a, b;
    struct stat st;
    unsigned seed = 1;
    for (size_t i = 0; i < sizeof buffer; i++) buffer[i] = (seed = seed * 1664525 + 1013904223) >> 24;
    snprintf(path, sizeof path, "%s/big", dir);
    int fd = -1;
    snprintf(prefix, sizeof prefix, "small%d-", jobs);
    if (!strcmp(what, "seq-read")) check((fd = open(path, O_RDONLY)) >= 0, path);
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (!strcmp(what, "seq-write")) {
        check((fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644)) >= 0, path);
        for (int i = 0; i < n; i++) check(write(fd, buffer, sizeof buffer) == sizeof buffer, "write");
        check(fsync(fd) == 0 && close(fd) == 0, "fsync");
    } else if (!strcmp(what, "seq-read")) {
        long long total = 0;
        for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) != 0; total += got) check(got > 0, "read");
        check(total == (long long)n << 20, "length");
    } else if (!strcmp(what, "durable")) fork_jobs(durable, dir, n, jobs);
    else if (!strcmp(what, "files")) fork_jobs(files, dir, n, jobs);
    else for (int i = 0; i < n; i++) {
        name(path, dir, "f", 0, i);
        name(other, dir, "g", 0, i);
        if (!strcmp(what, "create")) {
            check((fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644)) >= 0, path);
            check(close(fd) == 0, "close");
        } else if (!strcmp(what, "stat")) check(stat(path, &st) == 0, path);
        else if (!strcmp(what, "rename")) check(rename(path, other) == 0, path);
        else if (!strcmp(what, "unlink")) check(unlink(other) == 0, other);
        else return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.6f\n", (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
    return 0;
}
