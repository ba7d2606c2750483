/* The processes of the box, as a tree: finding and ending all descendants of one. */
#ifndef LBOX_INIT_PROCESSES_H
#define LBOX_INIT_PROCESSES_H

#include <stdbool.h>

/* Whether a process and what descends from it is to be left alone. */
typedef bool (*lbox_spare_fn)(int pid);

/* Sends a signal to every descendant of `ancestor` but those spared (`spare` may be NULL). Returns
   to how many. Processes that are started meanwhile may be missed. */
int lbox_processes_signal(int ancestor, lbox_spare_fn spare, int signal);

/* Kills every descendant, also of programs that start processes faster than one can kill them: all
   are stopped first. Returns how many there were. */
int lbox_processes_end(int ancestor, lbox_spare_fn spare);

#endif
