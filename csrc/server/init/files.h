/* File operations of lbox-init: done as the box's user, in the box's own view. Those that return
   int return 0 or an errno value. */
#ifndef LBOX_INIT_FILES_H
#define LBOX_INIT_FILES_H

#include <stddef.h>
#include <stdint.h>

struct lbox_file_info {
  uint8_t type; /* see protocol.h */
  uint64_t size;
  int64_t mtime; /* seconds */
  uint64_t inode;
  uint32_t mtime_ns; /* beyond those */
};

/* Opens a regular file to read. */
int lbox_files_open(const char *path, int *fd);

/* Makes a file that is to take the place of `path`, and the directories it needs. A symlink there
   stays: the place is what it names, whose directory has to be there. `file` names it for one of
   the two calls after. */
int lbox_files_create(const char *path, int *fd, uint32_t *file);
int lbox_files_commit(uint32_t file);
int lbox_files_abandon(uint32_t file);
void lbox_files_abandon_all(void);

int lbox_files_stat(const char *path, int follow, struct lbox_file_info *info);

/* Writes the entries of a directory into an anonymous file. */
int lbox_files_list(const char *path, int *fd);

int lbox_files_mkdir(const char *path, int parents);

/* Removes a file, a link or an empty directory. */
int lbox_files_remove(const char *path);

#endif
