/* Pseudo-terminals of the box. */
#ifndef LBOX_INIT_TERMINAL_H
#define LBOX_INIT_TERMINAL_H

#include <stdint.h>

/* Makes one of that size; `master` is the caller's. Returns 0 or an errno value. */
int lbox_terminal_open(uint32_t rows, uint32_t columns, int *master);

#endif
