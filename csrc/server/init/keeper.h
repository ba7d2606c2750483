/* Keepers: one small process per command, to whom every descendant of the command comes home. */
#ifndef LBOX_INIT_KEEPER_H
#define LBOX_INIT_KEEPER_H

#include <signal.h>
#include <stdbool.h>

#include "server/init/request.h"

/* What lbox-init asks a keeper with; it must be blocked in the caller. */
enum { LBOX_KEEPER_SIGNAL = SIGUSR1 };

/* Starts a keeper that runs the command. Returns its pid, or -1 with errno. `fds` are descriptors
   of the caller that the keeper must not have. */
int lbox_keeper_start(const struct lbox_command *command, const int *fds, int fd_count);

/* Sends a signal to everything of the keeper's command; or, with force, ends a keeper that no
   longer answers. False when there is no such keeper. */
bool lbox_keeper_kill(int keeper, int signal, bool force);

/* Reaps every child that has ended. A keeper that was killed leaves its command behind: then
   everything that belongs to no keeper is killed. */
void lbox_keeper_reap(void);

#endif
