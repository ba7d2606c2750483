/* A box that stands still: nothing in it changes its files until it goes on. */
#ifndef LBOX_INIT_FREEZE_H
#define LBOX_INIT_FREEZE_H

#include <stdbool.h>

/* Stops every process of the box but lbox-init, and waits until they have stopped, for half a
   second at most: who waits in the kernel for a stopped child never shows as stopped. Returns 0 or
   an errno value; then nothing is stopped. */
int lbox_freeze(void);

/* Continues all of them but those that were stopped before. */
void lbox_thaw(void);

bool lbox_is_frozen(void);

#endif
