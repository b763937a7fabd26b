// To be preloaded: the time of day is an hour ahead as long as the file that CLOCK_LATE names is there.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (clock == CLOCK_REALTIME && access(getenv("CLOCK_LATE"), F_OK) == 0) time->tv_sec += 3600;
    return result;
}
