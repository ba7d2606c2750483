/*
** Both trees are walked by descriptors, one name at a time and never through a link or out of the
** directory, whatever the tree's owner has put there. A box can nest as deep as it likes; copied is
** what a path of the usual length can reach.
**
** A file with several names is found again by its number: the first copy gets a second name, that
** number, in a directory beside the new tree, and what comes later is linked to it. So how many of
** them there are takes no memory.
*/
#include "server/init/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_DEPTH = 2048, PIECE = 256 * 1024, MAX_PATH = 4096 };

/* A file that lbox-init writes and has not yet put in its place (files.c). */
#define UNFINISHED ".lbox-write-"

struct copy {
  int links;   /* the directory of numbers */
  long owner;  /* of everything copied; -1: as it was */
  char *piece; /* PIECE bytes for content; owned, NULL until it is needed */
  struct lbox_copied *result;
};

struct place {
  int from, to; /* directories */
};

static int fail(struct copy *c, const char *name, int code)
{
  if (!*c->result->name)
    snprintf(c->result->name, sizeof c->result->name, "%s", name);
  return code;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int open_beneath(int dir, const char *name, int flags)
{
  flags |= O_NOFOLLOW | O_CLOEXEC;
  const struct open_how how = {
      .flags = (uint64_t)(unsigned)flags,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
  };
  int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
  /* Before Linux 5.6 there is none; one name of a directory's list leads nowhere else either. */
  return fd < 0 && errno == ENOSYS ? openat(dir, name, flags) : fd;
}

/* --- files ------------------------------------------------------------------------------------ */

/* Where something cannot be done this way, but can be in another. */
static bool is_unsupported(int code)
{
  return code == EXDEV || code == EINVAL || code == ENOSYS || code == EOPNOTSUPP ||
         code == ENOTTY || code == EPERM || code == EBADF;
}

static int write_all(int fd, const char *bytes, size_t n, off_t at)
{
  while (n > 0) {
    ssize_t written = pwrite(fd, bytes, n, at);
    if (written < 0 && errno == EINTR)
      continue;
    if (written < 0)
      return errno;
    bytes += written;
    at += written;
    n -= (size_t)written;
  }
  return 0;
}

static int copy_by_hand(struct copy *c, int from, int to, off_t at, off_t end)
{
  if (!c->piece)
    c->piece = malloc(PIECE);
  if (!c->piece)
    return ENOMEM;
  while (at < end) {
    size_t want = end - at < PIECE ? (size_t)(end - at) : PIECE;
    ssize_t n = pread(from, c->piece, want, at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? errno : 0;
    int code = write_all(to, c->piece, (size_t)n, at);
    if (code != 0)
      return code;
    at += n;
  }
  return 0;
}

static int copy_range(struct copy *c, int from, int to, off_t at, off_t end)
{
  off_t out = at;
  while (at < end) {
    ssize_t n = copy_file_range(from, &at, to, &out, (size_t)(end - at), 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && !is_unsupported(errno))
      return errno;
    if (n <= 0)
      return copy_by_hand(c, from, to, at, end);
  }
  return 0;
}

/* Goes through what is no hole. */
static int copy_content(struct copy *c, int from, int to, off_t size)
{
  bool shared = size > 0 && ioctl(to, FICLONE, from) == 0;
  off_t at = 0;
  while (at < size) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
      break;
    off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    if (data < 0 || hole < 0) {
      data = at;
      hole = size;
    }
    if (hole > size)
      hole = size;
    int code = shared || data >= hole ? 0 : copy_range(c, from, to, data, hole);
    if (code != 0)
      return code;
    if (hole > data)
      c->result->bytes += (uint64_t)(hole - data);
    at = hole;
  }
  return ftruncate(to, size) == 0 ? 0 : errno;
}

/* The owner first: to change it takes the setuid bit away. */
static int dress(struct copy *c, int fd, const struct stat *st)
{
  uid_t uid = c->owner >= 0 ? (uid_t)c->owner : st->st_uid;
  gid_t gid = c->owner >= 0 ? (gid_t)c->owner : st->st_gid;
  const struct timespec times[] = {st->st_atim, st->st_mtim};
  if (geteuid() == 0 && fchown(fd, uid, gid) != 0)
    return errno;
  return fchmod(fd, st->st_mode & 07777) == 0 && futimens(fd, times) == 0 ? 0 : errno;
}

static int copy_data(struct copy *c, struct place p, const char *name, const struct stat *st)
{
  struct stat is;
  int from = open_beneath(p.from, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (from < 0)
    return errno;
  int to = openat(p.to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  int code = to < 0 || fstat(from, &is) != 0 ? errno : !S_ISREG(is.st_mode) ? EINVAL : 0;
  if (code == 0)
    code = copy_content(c, from, to, is.st_size);
  if (code == 0)
    code = dress(c, to, st);
  if (to >= 0 && close(to) != 0 && code == 0)
    code = errno;
  close(from);
  return code;
}

static int copy_file(struct copy *c, struct place p, const char *name, const struct stat *st)
{
  char number[32];
  snprintf(number, sizeof number, "%llu", (unsigned long long)st->st_ino);
  if (st->st_nlink > 1) {
    if (linkat(c->links, number, p.to, name, 0) == 0)
      return 0;
    /* A file system takes only so many names of one file: then there is one file more. */
    if (errno == EMLINK)
      unlinkat(c->links, number, 0);
    else if (errno != ENOENT)
      return errno;
  }
  int code = copy_data(c, p, name, st);
  if (code == 0 && st->st_nlink > 1 && linkat(p.to, name, c->links, number, 0) != 0)
    code = errno;
  return code;
}

static int copy_symlink(struct copy *c, struct place p, const char *name, const struct stat *st)
{
  char target[MAX_PATH];
  ssize_t n = readlinkat(p.from, name, target, sizeof target - 1);
  if (n < 0)
    return errno;
  target[n] = 0;
  if (symlinkat(target, p.to, name) != 0)
    return errno;
  const struct timespec times[] = {st->st_atim, st->st_mtim};
  uid_t uid = c->owner >= 0 ? (uid_t)c->owner : st->st_uid;
  gid_t gid = c->owner >= 0 ? (gid_t)c->owner : st->st_gid;
  if (geteuid() == 0 && fchownat(p.to, name, uid, gid, AT_SYMLINK_NOFOLLOW) != 0)
    return errno;
  return utimensat(p.to, name, times, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
}

/* --- directories ------------------------------------------------------------------------------ */

static int copy_dir(struct copy *c, struct place p, const char *name, const char *as,
                    const struct stat *st, int depth);

static int copy_entry(struct copy *c, struct place p, const char *name, int depth)
{
  struct stat st;
  if (strncmp(name, UNFINISHED, sizeof UNFINISHED - 1) == 0)
    return 0;
  if (fstatat(p.from, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT ? 0 : errno; /* another file has just taken its place */
  if (S_ISREG(st.st_mode))
    return copy_file(c, p, name, &st);
  if (S_ISLNK(st.st_mode))
    return copy_symlink(c, p, name, &st);
  if (S_ISDIR(st.st_mode))
    return copy_dir(c, p, name, name, &st, depth + 1);
  return 0;
}

static int copy_entries(struct copy *c, DIR *dir, int to, int depth)
{
  const struct dirent *entry;
  while ((entry = readdir(dir))) {
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
      continue;
    int code = copy_entry(c, (struct place){dirfd(dir), to}, name, depth);
    if (code != 0)
      return fail(c, name, code);
  }
  return 0;
}

/* Copies the directory `name` of p.from to `as` in p.to. */
static int copy_dir(struct copy *c, struct place p, const char *name, const char *as,
                    const struct stat *st, int depth)
{
  enum { HOW = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };
  if (depth > MAX_DEPTH)
    return ENAMETOOLONG;
  int from = open_beneath(p.from, name, HOW);
  DIR *dir = from >= 0 ? fdopendir(from) : NULL;
  int to = dir && mkdirat(p.to, as, 0700) == 0 ? openat(p.to, as, HOW) : -1;
  int code = to < 0 ? errno : copy_entries(c, dir, to, depth);
  if (code == 0)
    code = dress(c, to, st);
  if (to >= 0)
    close(to);
  if (dir)
    closedir(dir);
  else if (from >= 0)
    close(from);
  return code;
}

/* Removes the directory of numbers. */
static int remove_links(const char *path, int fd)
{
  DIR *dir = fdopendir(fd);
  int code = dir ? 0 : errno;
  const struct dirent *entry;
  while (dir && (entry = readdir(dir))) {
    if (unlinkat(fd, entry->d_name, 0) != 0 && *entry->d_name != '.')
      code = errno;
  }
  if (dir)
    closedir(dir);
  else
    close(fd);
  return code == 0 && rmdir(path) != 0 ? errno : code;
}

int lbox_tree_copy(const char *from, const char *to, long owner, struct lbox_copied *copied)
{
  char links[MAX_PATH];
  struct stat st;
  struct copy c = {.owner = owner, .result = copied};
  *copied = (struct lbox_copied){0};
  if (snprintf(links, sizeof links, "%s.links", to) >= (int)sizeof links)
    return ENAMETOOLONG;
  if (lstat(from, &st) != 0 || mkdir(links, 0700) != 0)
    return errno;
  c.links = open(links, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (c.links < 0)
    return errno;
  int top = open(from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int code = top < 0 ? errno : copy_dir(&c, (struct place){top, AT_FDCWD}, ".", to, &st, 0);
  if (top >= 0)
    close(top);
  free(c.piece);
  int removed = remove_links(links, c.links);
  return code ? code : removed;
}
