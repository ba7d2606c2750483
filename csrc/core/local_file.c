#include "core/local_file.h"
#include "core/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RANDOM = 8 };

static void say(struct lbox_err *err, int number, const char *text)
{
  *err = (struct lbox_err){.rc = LBOX_ESYS, .code = number};
  snprintf(err->text, sizeof err->text, "%s", text);
}

static void say_errno(struct lbox_err *err)
{
  int number = errno;
  say(err, number, strerror(number));
}

static void close_fd(int *fd)
{
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

int lbox_local_read(const char *path, struct stat *facts, struct lbox_err *err)
{
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a FIFO must not block it */
  if (fd < 0 || fstat(fd, facts) != 0)
    say_errno(err);
  else if (!S_ISREG(facts->st_mode))
    say(err, EINVAL, S_ISDIR(facts->st_mode) ? "it is a directory" : "it is no regular file");
  else
    return fd;
  close_fd(&fd);
  return -1;
}

/* --- directories ------------------------------------------------------------------------------ */

static bool make_parents(char *path)
{
  for (char *at = path + 1; (at = strchr(at, '/')); at++) {
    *at = 0;
    bool there = mkdir(path, 0777) == 0 || errno == EEXIST;
    *at = '/';
    if (!there)
      return false;
  }
  return true;
}

int lbox_local_directory(const char *path, struct lbox_err *err)
{
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 || errno != ENOENT || !*path) {
    if (fd < 0)
      say_errno(err);
    return fd;
  }
  char *copy = strdup(path);
  bool made = copy && make_parents(copy) && (mkdir(path, 0777) == 0 || errno == EEXIST);
  if (made)
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    say_errno(err);
  free(copy);
  return fd;
}

bool lbox_local_name(const char *name, size_t len)
{
  bool dots = (len == 1 || len == 2) && memcmp(name, "..", len) == 0;
  return len > 0 && !dots && !memchr(name, '/', len) && !memchr(name, 0, len);
}

static bool check_name(const char *name, struct lbox_err *err)
{
  size_t len = strlen(name);
  if (lbox_local_name(name, len) && len < sizeof((struct lbox_local_file *)0)->name)
    return true;
  say(err, EINVAL, len ? "it is not the name of one file" : "the name is empty");
  return false;
}

int lbox_local_enter(int directory, const char *name, struct lbox_err *err)
{
  if (!check_name(name, err))
    return -1;
  if (mkdirat(directory, name, 0777) != 0 && errno != EEXIST) {
    say_errno(err);
    return -1;
  }
  int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
    say(err, errno, "it is there and no directory (symbolic links are not followed)");
  else if (fd < 0)
    say_errno(err);
  return fd;
}

/* --- a file ------------------------------------------------------------------------------------
 */

static bool name_temporary(struct lbox_local_file *f, struct lbox_err *err)
{
  unsigned char bytes[RANDOM];
  if (!lbox_random(bytes, sizeof bytes)) {
    say(err, 0, "the kernel gave no random bytes");
    return false;
  }
  char *at = f->temporary + sprintf(f->temporary, ".lbox-");
  for (size_t i = 0; i < sizeof bytes; i++)
    at += sprintf(at, "%02x", bytes[i]);
  return true;
}

bool lbox_local_create(struct lbox_local_file *f, int directory, const char *name,
                       struct lbox_err *err)
{
  struct stat facts;
  if (!check_name(name, err) || !name_temporary(f, err))
    return false;
  memcpy(f->name, name, strlen(name) + 1);
  f->directory = fcntl(directory, F_DUPFD_CLOEXEC, 0);
  if (f->directory >= 0)
    f->fd = openat(f->directory, f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                   0666);
  if (f->fd < 0) {
    say_errno(err);
    close_fd(&f->directory);
    return false;
  }
  if (fstat(f->fd, &facts) != 0 || fchmod(f->fd, 0600) != 0) {
    say_errno(err);
    lbox_local_discard(f);
    return false;
  }
  f->mode = facts.st_mode & 0777; /* as the umask leaves it, which only the kernel can ask safely */
  return true;
}

bool lbox_local_write(struct lbox_local_file *f, const char *bytes, size_t n, struct lbox_err *err)
{
  while (n > 0) {
    ssize_t put = write(f->fd, bytes, n);
    if (put < 0 && errno == EINTR)
      continue;
    if (put < 0) {
      say_errno(err);
      return false;
    }
    bytes += put;
    n -= (size_t)put;
  }
  return true;
}

bool lbox_local_commit(struct lbox_local_file *f, struct lbox_err *err)
{
  int fd = f->fd;
  bool ok = fchmod(fd, f->mode) == 0;
  f->fd = -1;
  ok = close(fd) == 0 && ok; /* some file systems tell only here that they are full */
  ok = ok && renameat(f->directory, f->temporary, f->directory, f->name) == 0;
  if (!ok) {
    say_errno(err);
    unlinkat(f->directory, f->temporary, 0);
  }
  close_fd(&f->directory);
  return ok;
}

void lbox_local_discard(struct lbox_local_file *f)
{
  if (f->fd >= 0)
    unlinkat(f->directory, f->temporary, 0);
  close_fd(&f->fd);
  close_fd(&f->directory);
}
