/* A disk that is full from the n-th request on: preloaded, it makes writes below one folder fail with ENOSPC.

   full_disk_start(folder, n) arms it; n = 0 only counts.  full_disk_count() is the number of requests so far. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long first_failure, requests;

void full_disk_start(const char *path, long n) {
    snprintf(folder, sizeof folder, "%s", path);
    first_failure = n;
    requests = 0;
}

long full_disk_count(void) { return requests; }

static int is_full(const char *path) {
    if (!folder[0] || strncmp(path, folder, strlen(folder)) != 0) return 0;
    requests++;
    if (!first_failure || requests < first_failure) return 0;
    errno = ENOSPC;
    return 1;
}

static int is_full_behind(int handle) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_full(path);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) {
    REAL(write);
    return is_full_behind(handle) ? -1 : real(handle, data, size);
}

ssize_t writev(int handle, const struct iovec *parts, int count) {
    REAL(writev);
    return is_full_behind(handle) ? -1 : real(handle, parts, count);
}

int fsync(int handle) {
    REAL(fsync);
    return is_full_behind(handle) ? -1 : real(handle);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return is_full(path) ? -1 : real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return is_full(to) ? -1 : real(from, to);
}

#define OPEN(name)                                                                    \
    int name(const char *path, int flags, ...) {                                      \
        REAL(name);                                                                   \
        va_list rest;                                                                 \
        va_start(rest, flags);                                                        \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;       \
        va_end(rest);                                                                 \
        return flags & O_CREAT && is_full(path) ? -1 : real(path, flags, mode);       \
    }
OPEN(open)
OPEN(open64)
