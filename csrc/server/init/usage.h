/* Memory of a box's processes, looked at from outside: lbox-init run by the server as a helper. */
#ifndef LBOX_INIT_USAGE_H
#define LBOX_INIT_USAGE_H

#include <stdbool.h>
#include <stdint.h>

struct lbox_usage {
  unsigned killed;
  char name[16]; /* of the largest that was killed */
  uint64_t bytes;
};

/* Kills the largest processes of a box until the others are below a limit in bytes. `proc` is the
   /proc of the box's pid namespace. Memory that processes share counts once; `quick`: what they
   have of a parent's counts for each, but nobody is waited for, where otherwise a process that is
   just forking is. Returns 0 or an errno value. */
int lbox_usage_keep(int proc, uint64_t limit, bool quick, struct lbox_usage *usage);

#endif
