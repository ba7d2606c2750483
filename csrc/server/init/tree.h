/* Whole trees, outside of a box: lbox-init run by the server as a helper. */
#ifndef LBOX_INIT_TREE_H
#define LBOX_INIT_TREE_H

/* Removes everything in a directory, which may be as deep and as hostile as one likes, but in which
   nothing is running. No link is followed. Returns 0 or an errno value. */
int lbox_tree_empty(const char *path);

#endif
