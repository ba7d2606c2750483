/* Whole trees, outside of a box: lbox-init run by the server as a helper. */
#ifndef LBOX_INIT_TREE_H
#define LBOX_INIT_TREE_H

#include <stdint.h>

/* Removes everything in a directory, which may be as deep and as hostile as one likes, but in which
   nothing is running. No link is followed. Returns 0 or an errno value. */
int lbox_tree_empty(const char *path);

/* What a directory takes of the disk, in bytes: nothing counts as less than 4096, and a file with
   several names as often as it has names here, each time for its part. Something may be running in
   it. No link is followed, and nothing is changed for it: what cannot be looked into does not
   count, nor what is deeper than 1024 directories. Returns 0 or an errno value. */
int lbox_tree_size(const char *path, uint64_t *bytes);

#endif
