#include "server/init/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Directories deeper than this are moved up to the top and emptied there: one descriptor per level
   is held, and a box can nest as deep as it likes. */
enum { MAX_DEPTH = 48 };

struct walk {
  int top;
  unsigned moved;  /* directories moved up so far, for their names */
  unsigned passed; /* those that were found again */
  int code;        /* the first failure */
};

static void note(struct walk *w, int code)
{
  if (w->code == 0)
    w->code = code;
}

/* Opens a subdirectory of its own. Its owner may have made it unreadable, or unwritable: then
   nothing could be removed from it, nor itself be moved, which changes its `..`. */
static int open_dir(int at, const char *name)
{
  enum { HOW = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };
  int fd = openat(at, name, O_RDONLY | HOW);
  if (fd < 0 && errno == EACCES) {
    char self[64];
    int handle = openat(at, name, O_PATH | HOW);
    if (handle < 0)
      return -1;
    snprintf(self, sizeof self, "/proc/self/fd/%d", handle);
    int changed = chmod(self, 0700);
    close(handle);
    fd = changed == 0 ? openat(at, name, O_RDONLY | HOW) : -1;
  }
  if (fd >= 0)
    fchmod(fd, 0700);
  return fd;
}

static bool move_up(struct walk *w, int at, const char *name)
{
  for (;;) {
    char to[64];
    snprintf(to, sizeof to, ".lbox-removed-%u", w->moved++);
    if (renameat2(at, name, w->top, to, RENAME_NOREPLACE) == 0)
      return true;
    if (errno != EEXIST)
      return false;
  }
}

/* Empties the directory `fd`, which it closes; calls itself at most MAX_DEPTH times deep. */
static void empty(struct walk *w, int fd, int depth)
{
  DIR *dir = fdopendir(fd);
  if (!dir) {
    note(w, errno);
    close(fd);
    return;
  }
  const struct dirent *entry;
  while ((entry = readdir(dir))) {
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
      continue;
    if (unlinkat(fd, name, 0) == 0)
      continue;
    if (errno != EISDIR && errno != EPERM) {
      note(w, errno);
      continue;
    }
    if (unlinkat(fd, name, AT_REMOVEDIR) == 0)
      continue;
    int sub = open_dir(fd, name);
    if (sub < 0) {
      note(w, errno);
      continue;
    }
    if (depth == MAX_DEPTH) {
      if (!move_up(w, fd, name))
        note(w, errno);
      close(sub);
      continue;
    }
    empty(w, sub, depth + 1);
    if (unlinkat(fd, name, AT_REMOVEDIR) != 0)
      note(w, errno);
  }
  closedir(dir);
}

int lbox_tree_empty(const char *path)
{
  struct walk w = {.top = open_dir(AT_FDCWD, path)};
  if (w.top < 0)
    return errno;
  /* Once more for what was moved to the top while it was read. */
  do {
    w.passed = w.moved;
    int fd = openat(w.top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
      note(&w, errno);
    else
      empty(&w, fd, 0);
  } while (w.moved != w.passed && w.code == 0);
  close(w.top);
  return w.code;
}

/* A file takes an inode, of which a file system has only so many, also without content. */
enum { MAX_SIZED = 1024, BLOCK = 512, LEAST = 4096 };

/* Adds what is in the directory `fd`, which it closes. */
static void add_size(int fd, int depth, uint64_t *bytes)
{
  DIR *dir = fdopendir(fd);
  if (!dir) {
    close(fd);
    return;
  }
  const struct dirent *entry;
  while ((entry = readdir(dir))) {
    struct stat st;
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    uint64_t names = S_ISDIR(st.st_mode) || st.st_nlink < 2 ? 1 : (uint64_t)st.st_nlink;
    uint64_t size = (uint64_t)st.st_blocks * BLOCK;
    *bytes += (size < LEAST ? LEAST : size) / names;
    int sub = S_ISDIR(st.st_mode) && depth < MAX_SIZED
                  ? openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                  : -1;
    if (sub >= 0)
      add_size(sub, depth + 1, bytes);
  }
  closedir(dir);
}

int lbox_tree_size(const char *path, uint64_t *bytes)
{
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0)
    return errno;
  *bytes = 0;
  add_size(fd, 0, bytes);
  return 0;
}
