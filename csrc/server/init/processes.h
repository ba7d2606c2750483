/* The processes of the box as a tree, and which of them a signal is for. */
#ifndef LBOX_INIT_PROCESSES_H
#define LBOX_INIT_PROCESSES_H

#include <stdint.h>

/* What is to become of all that descends from a process. */
enum lbox_fate {
  LBOX_AS_PARENT, /* nothing of its own */
  LBOX_SPARED,
  LBOX_DOOMED
};

/* Says it for one process. Who has a fate to give is not meant itself. */
typedef enum lbox_fate (*lbox_fate_fn)(int pid);

/* Sends a signal to the doomed. Those that are started meanwhile may be missed. */
void lbox_processes_signal(lbox_fate_fn fate, int signal);

/* Kills the doomed, also if they start processes faster than these can be read. For that it may
   stop everything in the box for a moment, so only lbox-init may call it, whom nobody stops in the
   middle. Takes a fraction of a second. Returns how many were doomed: 0, none is left. */
int lbox_processes_end(lbox_fate_fn fate);

/* Milliseconds of a clock that only goes forward. */
int64_t lbox_now_ms(void);

#endif
