/* Keepers: one small process per command, to whom every descendant of the command comes home. */
#ifndef LBOX_INIT_KEEPER_H
#define LBOX_INIT_KEEPER_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/init/request.h"

/* What lbox-init tells a keeper; these and SIGCHLD must be blocked in the caller. */
#define LBOX_KEEPER_STAY    SIGUSR1  /* its command is being killed: until nobody is left */
#define LBOX_KEEPER_PASS_ON SIGRTMIN /* another signal, its value, for the command */

/* Starts a keeper that runs the command. Returns its pid, or -1 with errno. `ours` are descriptors
   of the caller that the keeper must not have. */
int lbox_keeper_start(const struct lbox_command *command, const struct pollfd *ours, size_t count);

/* Sends a signal to everything of the keeper's command: SIGKILL until nobody is left of it. With
   force, ends a keeper that no longer answers. False when there is no such keeper. */
bool lbox_keeper_kill(int keeper, int signal, bool force);

/* Reaps children that have ended, and goes on with the killing, if there is any. A keeper that was
   stopped is continued. One that was killed leaves its command behind: then everything that belongs
   to no keeper is killed. Returns after how many milliseconds it is to be called again at the
   latest; -1: when a child ends. */
int lbox_keeper_tend(void);

#endif
