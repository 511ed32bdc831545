/*
 * What would a disk hold after a power loss? Preloaded into a process, this
 * keeps for each file below POWERLOSS_ROOT the content that it had at its last
 * fsync or fdatasync, and for each folder the names that it had at its last
 * fsync. Nothing else is taken to be durable: neither sync_file_range nor a
 * rename nor the mere passing of time.
 *
 * In the folder POWERLOSS_SHADOW, named by inode number:
 *   f.<inode>  the content of a file
 *   d.<inode>  the names in a folder: lines of "<inode> <type> <name>"
 * The test puts the image together from these, starting at the root's inode.
 *
 * The process is ended by SIGKILL, possibly in the middle of a sync: what is
 * half-way here is then what a disk may hold of a sync that never returned.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_INODES 65536
#define BLOCK 65536

struct known {
  ino_t inode;
  /* Held so that the number is not given to another file. */
  int held;
  int copied;
  off_t from, to; /* written since the last sync */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct known table[MOST_INODES];
static const char *root, *shadow;
static size_t root_length;

static void fail(const char *what) {
  fprintf(stderr, "powerloss: %s\n", what);
  _exit(99);
}

__attribute__((constructor)) static void begin(void) {
  root = getenv("POWERLOSS_ROOT");
  shadow = getenv("POWERLOSS_SHADOW");
  if (root && shadow) root_length = strlen(root);
}

static int below_root(int fd) {
  char link[64], path[4096];
  if (!root_length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < (ssize_t)root_length) return 0;
  path[n] = 0;
  return strncmp(path, root, root_length) == 0 && (path[root_length] == 0 || path[root_length] == '/');
}

/* The entry of an inode; open addressing, never emptied. */
static struct known *look_up(ino_t inode, int fd, const char *name) {
  size_t at = (size_t)(inode * 0x9e3779b97f4a7c15ull >> 48) % MOST_INODES;
  for (size_t tries = 0; tries < MOST_INODES; tries++, at = (at + 1) % MOST_INODES) {
    if (table[at].inode == inode) return &table[at];
    if (table[at].inode) continue;
    int held = name ? openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : fcntl(fd, F_DUPFD_CLOEXEC, 200);
    if (held < 0) fail("cannot hold an inode");
    table[at].inode = inode;
    table[at].held = held;
    return &table[at];
  }
  fail("too many inodes");
  return NULL;
}

static void shadow_path(char *path, size_t size, char kind, ino_t inode, const char *suffix) {
  snprintf(path, size, "%s/%c.%llu%s", shadow, kind, (unsigned long long)inode, suffix);
}

static void written(int fd, off_t from, off_t to) {
  struct stat st;
  if (!below_root(fd) || fstat(fd, &st) || !S_ISREG(st.st_mode)) return;
  pthread_mutex_lock(&lock);
  struct known *k = look_up(st.st_ino, fd, NULL);
  if (k->from == k->to) {
    k->from = from;
    k->to = to;
  } else {
    if (from < k->from) k->from = from;
    if (to > k->to) k->to = to;
  }
  pthread_mutex_unlock(&lock);
}

static void keep_content(int fd, const struct stat *st) {
  static char block[BLOCK];
  char path[4200];
  struct known *k = look_up(st->st_ino, fd, NULL);
  off_t from = k->copied ? k->from : 0, to = k->copied ? k->to : st->st_size;
  shadow_path(path, sizeof path, 'f', st->st_ino, "");
  int out = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (out < 0) fail("cannot write the shadow");
  /* The file itself may be open for writing only. */
  char self[64];
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  int in = syscall(SYS_openat, AT_FDCWD, self, O_RDONLY | O_CLOEXEC, 0);
  if (in < 0) fail("cannot read a file");
  while (from < to) {
    size_t want = to - from < BLOCK ? to - from : BLOCK;
    ssize_t n = syscall(SYS_pread64, in, block, want, from);
    if (n <= 0) break;
    if (syscall(SYS_pwrite64, out, block, n, from) != n) fail("cannot write the shadow");
    from += n;
  }
  if (syscall(SYS_ftruncate, out, st->st_size)) fail("cannot cut the shadow");
  syscall(SYS_close, in);
  syscall(SYS_close, out);
  k->copied = 1;
  k->from = k->to = 0;
}

static void keep_names(int fd, const struct stat *st) {
  char path[4200], final[4200], self[64];
  look_up(st->st_ino, fd, NULL);
  shadow_path(path, sizeof path, 'd', st->st_ino, ".part");
  shadow_path(final, sizeof final, 'd', st->st_ino, "");
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  DIR *names = opendir(self);
  FILE *out = fopen(path, "w");
  if (!names || !out) fail("cannot list a folder");
  for (struct dirent *e; (e = readdir(names));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    look_up(e->d_ino, fd, e->d_name);
    fprintf(out, "%llu %c %s\n", (unsigned long long)e->d_ino, e->d_type == DT_DIR ? 'd' : 'f', e->d_name);
  }
  closedir(names);
  if (fclose(out) || rename(path, final)) fail("cannot write the shadow");
}

static void keep(int fd) {
  struct stat st;
  if (!below_root(fd) || fstat(fd, &st)) return;
  pthread_mutex_lock(&lock);
  if (S_ISREG(st.st_mode)) keep_content(fd, &st);
  if (S_ISDIR(st.st_mode)) keep_names(fd, &st);
  pthread_mutex_unlock(&lock);
}

int fsync(int fd) {
  int result = syscall(SYS_fsync, fd);
  if (!result) keep(fd);
  return result;
}

int fdatasync(int fd) {
  int result = syscall(SYS_fdatasync, fd);
  if (!result) keep(fd);
  return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  ssize_t n = syscall(SYS_pwrite64, fd, data, size, at);
  if (n > 0) written(fd, at, at + n);
  return n;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

static ssize_t after_write(int fd, ssize_t n) {
  if (n > 0 && root_length) {
    off_t end = lseek(fd, 0, SEEK_CUR);
    if (end >= n) written(fd, end - n, end);
  }
  return n;
}

ssize_t write(int fd, const void *data, size_t size) {
  return after_write(fd, syscall(SYS_write, fd, data, size));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  return after_write(fd, syscall(SYS_writev, fd, parts, count));
}

int ftruncate64(int fd, off64_t size) {
  int result = syscall(SYS_ftruncate, fd, size);
  struct stat st;
  if (!result && !fstat(fd, &st)) written(fd, 0, st.st_size);
  return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
