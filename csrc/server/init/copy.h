/* Copies of whole trees, outside of a box: lbox-init run by the server as a helper. */
#ifndef LBOX_INIT_COPY_H
#define LBOX_INIT_COPY_H

#include <stdint.h>

struct lbox_copied {
  uint64_t bytes; /* of content: without holes, and once of a file with several names */
  char name[256]; /* what could not be copied; empty when that is the tree itself */
};

/* Copies the directory `from`, in which nothing is running, to `to`, which is not there yet. No
   link is followed. Kept are content with its holes, permissions, times, symlinks, and that several
   names are one file; the owner too, or it is `owner` when that is not negative. Sockets, FIFOs,
   devices and what is being written are left out. While it copies, "<to>.links" is its own. What
   was begun stays when it fails. Returns 0 or an errno value. */
int lbox_tree_copy(const char *from, const char *to, long owner, struct lbox_copied *copied);

#endif
