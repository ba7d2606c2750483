/* User namespaces of processes that are not root. */
#ifndef LBOX_SERVER_INIT_USERNS_H
#define LBOX_SERVER_INIT_USERNS_H

/* Says who the caller's user and group, outside of the namespace it has just made, are inside: the
   only ones there are. Returns 0 or an errno value. */
int lbox_userns_map(unsigned inside_uid, unsigned uid, unsigned inside_gid, unsigned gid);

#endif
