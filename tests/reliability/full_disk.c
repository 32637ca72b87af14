/* A disk that is full at a moment of the test's choice, for whatever writes through the C library (LD_PRELOAD): Python,
   SQLite, safetensors and ffmpeg alike. The calls below one folder are counted, over all processes that share the state:
   the file that FULL_DISK names. From the call `at` on they fail with ENOSPC, or only that one does, unless `stays`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct {
  long count, at, stays;
  char folder[1024], failed[4096]; /* what failed first */
} *state;

__attribute__((constructor)) static void attach(void) {
  int (*open_)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
  const char *name = getenv("FULL_DISK");
  int fd = name ? open_(name, O_RDWR) : -1;
  void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) state = mapped;
  if (fd >= 0) close(fd);
}

/* 0: the call does its work; 1: it fails, as the first; 2: as a later one. */
static int is_full(const char *call, const char *path) {
  if (!state || !state->folder[0] || strncmp(path, state->folder, strlen(state->folder))) return 0;
  long number = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
  if (!state->at || number < state->at || (number > state->at && !state->stays)) return 0;
  if (number == state->at) snprintf(state->failed, sizeof state->failed, "%s %s", call, path);
  errno = ENOSPC;
  return number == state->at ? 1 : 2;
}

static int is_full_at(const char *call, int fd) {
  char link[64], path[PATH_MAX];
  if (!state || !state->folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_full(call, path);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* Where the disk stays full, the first write that fails leaves a half behind, as disks do. */
#define WRITE(name, parameters, ...)                             \
  ssize_t name parameters {                                            \
    REAL(name);                                                        \
    int full = is_full_at(#name, fd);                                  \
    if (full == 1 && state->stays && size > 1) { size /= 2; full = 0; } \
    return full ? -1 : real(__VA_ARGS__);                              \
  }
WRITE(write, (int fd, const void *data, size_t size), fd, data, size)
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
WRITE(writev, (int fd, const struct iovec *data, int size), fd, data, size)
WRITE(sendfile, (int fd, int from, off_t *at, size_t size), fd, from, at, size)
WRITE(sendfile64, (int fd, int from, off64_t *at, size_t size), fd, from, at, size)
ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned int flags) {
  REAL(copy_file_range);
  return is_full_at("copy_file_range", fd) ? -1 : real(from, at, fd, to, size, flags);
}

#define SYNC(name)                                  \
  int name(int fd) {                                \
    REAL(name);                                     \
    return is_full_at(#name, fd) ? -1 : real(fd);   \
  }
SYNC(fsync)
SYNC(fdatasync)

static int grows(int fd, off64_t size) {
  struct stat now;
  return fstat(fd, &now) == 0 && size > now.st_size;
}
#define TRUNCATE(name, type)                                             \
  int name(int fd, type size) {                                          \
    REAL(name);                                                          \
    return grows(fd, size) && is_full_at(#name, fd) ? -1 : real(fd, size); \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* posix_fallocate returns its error. */
int posix_fallocate(int fd, off_t at, off_t size) {
  REAL(posix_fallocate);
  return is_full_at("posix_fallocate", fd) ? ENOSPC : real(fd, at, size);
}

/* What is there already is refused as that, also on a full disk. */
#define NEW(name, parameters, path, ...)                                           \
  int name parameters {                                                            \
    REAL(name);                                                                    \
    return access(path, F_OK) && is_full(#name, path) ? -1 : real(__VA_ARGS__);    \
  }
NEW(mkdir, (const char *path, mode_t mode), path, path, mode)
NEW(symlink, (const char *target, const char *path), path, target, path)
NEW(link, (const char *from, const char *path), path, from, path)

/* Of the chosen call alone: a moment later the draft that failed is gone, and there is room for a name. */
int rename(const char *from, const char *to) {
  REAL(rename);
  return is_full("rename", to) == 1 ? -1 : real(from, to);
}

#define OPEN(name, parameters, path, ...)                                                      \
  int name parameters {                                                                        \
    REAL(name);                                                                                \
    va_list rest;                                                                              \
    va_start(rest, flags);                                                                     \
    mode_t mode = va_arg(rest, mode_t);                                                        \
    va_end(rest);                                                                              \
    return flags & O_CREAT && access(path, F_OK) && is_full(#name, path) ? -1 : real(__VA_ARGS__, mode); \
  }
OPEN(open, (const char *path, int flags, ...), path, path, flags)
OPEN(open64, (const char *path, int flags, ...), path, path, flags)
OPEN(openat, (int fd, const char *path, int flags, ...), path, fd, path, flags)
OPEN(openat64, (int fd, const char *path, int flags, ...), path, fd, path, flags)
