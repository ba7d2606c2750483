/* What cmake/embed.lua puts into the program. All of it is constant and lives as long as it. */
#ifndef LBOX_EMBEDDED_H
#define LBOX_EMBEDDED_H

#include <stddef.h>

struct lbox_embedded {
  const char *name; /* module name; NULL ends the list */
  const char *bytes;
  size_t size;
};

extern const struct lbox_embedded lbox_embedded[];
extern const struct lbox_embedded lbox_init_program;

#endif
