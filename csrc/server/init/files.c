#include "server/init/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int lbox_files_open(const char *path, int *fd)
{
  /* Non-blocking: a FIFO or a device must not stop us before it is seen for what it is. */
  *fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (*fd < 0)
    return errno;
  struct stat st;
  int code = fstat(*fd, &st) != 0   ? errno
             : S_ISDIR(st.st_mode)  ? EISDIR
             : !S_ISREG(st.st_mode) ? EINVAL
                                    : 0;
  if (code != 0) {
    close(*fd);
    *fd = -1;
  }
  return code;
}

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
  if (errno == EEXIST && stat(copy, &st) == 0 && S_ISDIR(st.st_mode))
    return 0;
  return errno;
}

int lbox_files_create(const char *path, int *fd, char *name, size_t name_size)
{
  const char *slash = strrchr(path, '/');
  if (!slash || !slash[1] || strlen(path) >= PATH_MAX)
    return slash && !slash[1] ? EISDIR : EINVAL;
  char dir[PATH_MAX];
  snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
  struct stat st;
  if (*dir) {
    int code = lbox_files_mkdir(dir, 1);
    if (code != 0)
      return code == EEXIST ? ENOTDIR : code;
  }
  mode_t mode = 0644;
  if (stat(path, &st) == 0) {
    if (S_ISDIR(st.st_mode))
      return EISDIR;
    if (!S_ISREG(st.st_mode))
      return EINVAL;
    mode = st.st_mode & 0777;
  }
  if (snprintf(name, name_size, "%s/.lbox-write-XXXXXX", dir) >= (int)name_size)
    return ENAMETOOLONG;
  *fd = mkostemp(name, O_CLOEXEC);
  if (*fd < 0)
    return errno;
  fchmod(*fd, mode);
  return 0;
}

static void take(const struct stat *st, struct lbox_file_info *info)
{
  info->type = S_ISREG(st->st_mode) ? 0 : S_ISDIR(st->st_mode) ? 1 : S_ISLNK(st->st_mode) ? 2 : 3;
  info->size = (uint64_t)st->st_size;
  info->mtime = st->st_mtime;
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

int lbox_files_list(const char *path, int *fd)
{
  DIR *dir = opendir(path);
  if (!dir)
    return errno;
  int code = 0;
  *fd = memfd_create("lbox-list", MFD_CLOEXEC);
  int copy = *fd >= 0 ? fcntl(*fd, F_DUPFD_CLOEXEC, 0) : -1;
  FILE *out = copy >= 0 ? fdopen(copy, "w") : NULL;
  if (!out) {
    code = errno;
  } else {
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
      struct stat st;
      struct lbox_file_info info;
      if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
        continue;
      if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        continue; /* gone meanwhile */
      take(&st, &info);
      write_entry(out, &info, entry->d_name);
    }
    if (fclose(out) != 0)
      code = errno;
  }
  closedir(dir);
  if (code != 0 && *fd >= 0) {
    close(*fd);
    *fd = -1;
  }
  if (code == 0)
    lseek(*fd, 0, SEEK_SET);
  return code;
}
