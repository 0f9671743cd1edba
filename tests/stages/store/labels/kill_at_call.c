/* Loaded before libc (LD_PRELOAD): once armed, the process is killed by SIGKILL before its n-th call that changes a file.

   SQLite calls libc from C, where nothing in Python sees it. Both names of the calls that take 64-bit offsets are here,
   since which one is called depends on how SQLite was built. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1; /* calls that may still be made; below 0: not armed */
static long made = 0;

void kill_at_call(long n) { left = n; made = 0; }

long calls_made(void) { left = -1; return made; }

static void count(void) {
    if (left < 0)
        return;
    if (left-- == 0)
        kill(getpid(), SIGKILL);
    made++;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) { count(); return REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { count(); return REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    count();
    return REAL(pwrite64)(fd, data, size, at);
}
int fsync(int fd) { count(); return REAL(fsync)(fd); }
int fdatasync(int fd) { count(); return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { count(); return REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { count(); return REAL(ftruncate64)(fd, size); }
int unlink(const char *path) { count(); return REAL(unlink)(path); }
int rename(const char *from, const char *to);
int rename(const char *from, const char *to) { count(); return REAL(rename)(from, to); }
