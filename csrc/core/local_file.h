/*
** Files of this machine: what is sent is read from them, what is fetched is written to them.
**
** Names that come from a server are single components of a path: an open directory makes files and
** directories of such names, follows no symbolic link, and so never reaches outside.
*/
#ifndef LBOX_LOCAL_FILE_H
#define LBOX_LOCAL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "core/engine.h"

/* Opens a regular file for reading and says what it is. The descriptor is the caller's. -1 with the
   reason in err, which does not name the path. */
int lbox_local_read(const char *path, struct stat *facts, struct lbox_err *err);

/* Opens a directory by the path of a user, who may have symbolic links in it; it and its parents
   are made when they are missing. The descriptor is the caller's; -1 with the reason in err. */
int lbox_local_directory(const char *path, struct lbox_err *err);

/* Whether it is the name of one thing in a directory: not empty, no "." or "..", no slash, no NUL.
 */
bool lbox_local_name(const char *name, size_t len);

/* Opens the directory of that name in a directory, and makes it when it is missing. The descriptor
   is the caller's; -1 with the reason in err, also for a symbolic link. */
int lbox_local_enter(int directory, const char *name, struct lbox_err *err);

/* A file that appears under its name only when it is complete: until then it is a temporary one
   beside it, for its owner only. Zero it, but `fd` and `directory`, which are -1 without one. */
struct lbox_local_file {
  int fd, directory; /* owned */
  mode_t mode;       /* it will have */
  char temporary[32];
  char name[256];
};

/* All false with the reason in err. What does not get to lbox_local_commit is discarded. The
   directory's descriptor is borrowed for the call. */
bool lbox_local_create(struct lbox_local_file *f, int directory, const char *name,
                       struct lbox_err *err);
bool lbox_local_write(struct lbox_local_file *f, const char *bytes, size_t n, struct lbox_err *err);
/* Puts the file in the place of what has its name, if that is no directory. It is gone from `f`,
   however that ends. */
bool lbox_local_commit(struct lbox_local_file *f, struct lbox_err *err);
/* Idempotent. */
void lbox_local_discard(struct lbox_local_file *f);

#endif
