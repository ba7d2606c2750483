#include "server/init/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "server/init/protocol.h"

int lbox_files_open(const char *path, int *fd)
{
  /* Non-blocking: a FIFO, a device or a lease must not stop us before we see what it is. */
  int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (file < 0)
    return errno;
  /* What /proc has to say takes as long to read as programs of the box like. */
  struct stat st;
  struct statfs fs;
  int code = fstat(file, &st) != 0 || fstatfs(file, &fs) != 0        ? errno
             : S_ISDIR(st.st_mode)                                   ? EISDIR
             : !S_ISREG(st.st_mode) || fs.f_type == PROC_SUPER_MAGIC ? EINVAL
                                                                     : 0;
  if (code != 0)
    close(file);
  else
    *fd = file;
  return code;
}

/* --- writing ---------------------------------------------------------------------------------- */

enum {
  MAX_PENDING = 4096,
  MAX_LINKS = 40 /* as the kernel follows */
};

/* Files that are written and not yet in their place. */
static struct {
  struct pending {
    char *name, *target; /* both in one block, owned by `name`; NULL: free */
  } * list;
  uint32_t count;
} pending;

/* A free place among them: its index, or MAX_PENDING and errno. */
static uint32_t find_place(void)
{
  uint32_t at = 0;
  while (at < pending.count && pending.list[at].name)
    at++;
  if (at < pending.count)
    return at;
  uint32_t count = at ? at * 2 : 16;
  struct pending *list = at < MAX_PENDING ? realloc(pending.list, count * sizeof *list) : NULL;
  if (!list) {
    errno = at < MAX_PENDING ? ENOMEM : EMFILE;
    return MAX_PENDING;
  }
  memset(list + at, 0, (count - at) * sizeof *list);
  pending.list = list;
  pending.count = count;
  return at;
}

/* Where writing to `path` writes to: through symlinks, to what need not be there. */
static int resolve(const char *path, char *target)
{
  char link[PATH_MAX];
  if (strlen(path) >= PATH_MAX)
    return ENAMETOOLONG;
  strcpy(target, path);
  for (int i = 0; i <= MAX_LINKS; i++) {
    ssize_t n = readlink(target, link, sizeof link);
    if (n < 0)
      return errno == EINVAL || errno == ENOENT ? 0 : errno;
    char *from = *link == '/' ? target : strrchr(target, '/') + 1;
    if ((from - target) + n >= PATH_MAX)
      return ENAMETOOLONG;
    memcpy(from, link, (size_t)n);
    from[n] = 0;
  }
  return ELOOP;
}

/* `mode` is what the file in the place of `target` has; its directory is made if `make` is set. */
static int prepare(const char *target, bool make, char *dir, mode_t *mode)
{
  const char *slash = strrchr(target, '/');
  if (!slash[1])
    return EISDIR;
  snprintf(dir, PATH_MAX, "%.*s", (int)(slash - target), target);
  if (*dir && make) {
    int code = lbox_files_mkdir(dir, 1);
    if (code != 0)
      return code == EEXIST ? ENOTDIR : code;
  }
  struct stat st;
  if (stat(target, &st) != 0)
    return errno == ENOENT ? 0 : errno;
  if (!S_ISREG(st.st_mode))
    return S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
  *mode = st.st_mode & 0777;
  return 0;
}

int lbox_files_create(const char *path, int *fd, uint32_t *file)
{
  char target[PATH_MAX], dir[PATH_MAX];
  uint32_t place = find_place();
  if (place == MAX_PENDING)
    return errno;
  mode_t mode = 0644;
  int code = resolve(path, target);
  if (code == 0)
    code = prepare(target, strcmp(target, path) == 0, dir, &mode);
  if (code != 0)
    return code;
  size_t name_size = strlen(dir) + sizeof "/.lbox-write-XXXXXX";
  char *name = malloc(name_size + strlen(target) + 1);
  if (!name)
    return ENOMEM;
  snprintf(name, name_size, "%s/.lbox-write-XXXXXX", dir);
  strcpy(name + name_size, target);
  int made = mkostemp(name, O_CLOEXEC);
  if (made < 0) {
    code = errno;
    free(name);
    return code;
  }
  fchmod(made, mode);
  pending.list[place] = (struct pending){name, name + name_size};
  *fd = made;
  *file = place;
  return 0;
}

static int settle(uint32_t file, bool keep)
{
  if (file >= pending.count || !pending.list[file].name)
    return EINVAL;
  struct pending p = pending.list[file];
  int code = keep && rename(p.name, p.target) != 0 ? errno : 0;
  if (!keep || code != 0)
    unlink(p.name);
  pending.list[file].name = NULL;
  free(p.name);
  return code;
}

int lbox_files_commit(uint32_t file)
{
  return settle(file, true);
}

int lbox_files_abandon(uint32_t file)
{
  return settle(file, false);
}

void lbox_files_abandon_all(void)
{
  for (uint32_t i = 0; i < pending.count; i++)
    settle(i, false);
}

/* --- looking ---------------------------------------------------------------------------------- */

static void take(const struct stat *st, struct lbox_file_info *info)
{
  info->type = S_ISREG(st->st_mode) ? 0 : S_ISDIR(st->st_mode) ? 1 : S_ISLNK(st->st_mode) ? 2 : 3;
  info->size = (uint64_t)st->st_size;
  info->mtime = st->st_mtime;
  info->inode = st->st_ino;
  info->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
}

int lbox_files_stat(const char *path, int follow, struct lbox_file_info *info)
{
  struct stat st;
  if ((follow ? stat(path, &st) : lstat(path, &st)) != 0)
    return errno;
  take(&st, info);
  return 0;
}

static void write_entry(FILE *out, const struct lbox_file_info *info, const char *name)
{
  uint32_t len = (uint32_t)strlen(name);
  fwrite(&info->type, sizeof info->type, 1, out);
  fwrite(&info->size, sizeof info->size, 1, out);
  fwrite(&info->mtime, sizeof info->mtime, 1, out);
  fwrite(&len, sizeof len, 1, out);
  fwrite(name, 1, len, out);
}

static int write_entries(DIR *dir, FILE *out)
{
  const struct dirent *entry;
  for (int count = 0; (entry = readdir(dir));) {
    struct stat st;
    struct lbox_file_info info;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
      continue;
    if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
      continue; /* gone meanwhile */
    if (++count > LBOX_INIT_MAX_ENTRIES)
      return EFBIG;
    take(&st, &info);
    write_entry(out, &info, entry->d_name);
  }
  return 0;
}

int lbox_files_list(const char *path, int *fd)
{
  DIR *dir = opendir(path);
  if (!dir)
    return errno;
  int code = 0;
  int list = memfd_create("lbox-list", MFD_CLOEXEC);
  int copy = list >= 0 ? fcntl(list, F_DUPFD_CLOEXEC, 0) : -1;
  FILE *out = copy >= 0 ? fdopen(copy, "w") : NULL;
  if (out) {
    code = write_entries(dir, out);
    if (fclose(out) != 0 && code == 0)
      code = errno;
  } else {
    code = errno;
    if (copy >= 0)
      close(copy);
  }
  closedir(dir);
  if (code == 0) {
    lseek(list, 0, SEEK_SET);
    *fd = list;
  } else if (list >= 0) {
    close(list);
  }
  return code;
}

/* --- the rest --------------------------------------------------------------------------------- */

int lbox_files_mkdir(const char *path, int parents)
{
  if (!parents)
    return mkdir(path, 0755) == 0 ? 0 : errno;
  char copy[PATH_MAX];
  if (strlen(path) >= sizeof copy)
    return ENAMETOOLONG;
  strcpy(copy, path);
  for (char *at = copy + 1; *at; at++) {
    if (*at != '/')
      continue;
    *at = 0;
    if (mkdir(copy, 0755) != 0 && errno != EEXIST)
      return errno;
    *at = '/';
  }
  if (mkdir(copy, 0755) == 0)
    return 0;
  struct stat st;
  if (errno != EEXIST)
    return errno;
  if (stat(copy, &st) != 0)
    return errno;
  return S_ISDIR(st.st_mode) ? 0 : EEXIST;
}

int lbox_files_remove(const char *path)
{
  if (unlink(path) == 0)
    return 0;
  if (errno != EISDIR)
    return errno;
  return rmdir(path) == 0 ? 0 : errno;
}
