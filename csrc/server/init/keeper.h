/* Keepers: one small process per command, to whom every descendant of the command comes home. */
#ifndef LBOX_INIT_KEEPER_H
#define LBOX_INIT_KEEPER_H

struct lbox_command {
  char *cwd, **argv, **env; /* borrowed */
  int fds[3];               /* its standard descriptors; owned by the caller */
  int status_fd;            /* where the keeper reports */
};

/* Starts a keeper that runs the command. Returns its pid, or -1 with errno. `control_fd` is closed
   in the child. */
int lbox_keeper_start(const struct lbox_command *command, int control_fd, int signal_fd);

/* Tells a keeper to kill everything of its command. */
void lbox_keeper_kill(int keeper);

#endif
