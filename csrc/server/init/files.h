/* File operations of lbox-init: done as the box's user, in the box's own view. Each returns 0 or an
   errno value. */
#ifndef LBOX_INIT_FILES_H
#define LBOX_INIT_FILES_H

#include <stddef.h>
#include <stdint.h>

/* Opens a regular file to read. */
int lbox_files_open(const char *path, int *fd);

/* Makes a new file beside `path`, and the directories it needs. `name` gets its path. */
int lbox_files_create(const char *path, int *fd, char *name, size_t name_size);

struct lbox_file_info {
  uint8_t type; /* 0 file, 1 directory, 2 symlink, 3 other */
  uint64_t size;
  int64_t mtime;
};

int lbox_files_stat(const char *path, int follow, struct lbox_file_info *info);

/* Writes the entries of a directory into an anonymous file (protocol.h, LIST). */
int lbox_files_list(const char *path, int *fd);

int lbox_files_mkdir(const char *path, int parents);

#endif
