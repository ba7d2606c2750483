/*
** SIGINT and SIGTERM for scripts: the first of each is told by a pipe, so that the loop can cancel
** what is going on; another one ends the program at once, as does one that comes while nobody is
** listening. What was ignored when the program started stays ignored.
*/
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

/* A handler has nothing else to go by. -1: nobody listens. */
static volatile sig_atomic_t pipe_end = -1;

static void tell(int number)
{
  int code = errno;
  unsigned char byte = (unsigned char)number;
  if (write(pipe_end, &byte, 1) != 1)
    raise(number); /* the handler is gone already */
  errno = code;
}

static void handle(int number)
{
  struct sigaction action = {.sa_handler = tell, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)}, old;
  sigemptyset(&action.sa_mask);
  if (sigaction(number, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
    sigaction(number, &action, NULL);
}

int lbox_cli_signals(void)
{
  static int ends[2] = {-1, -1};
  if (ends[0] < 0) {
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
      return -1;
    pipe_end = ends[1];
  }
  handle(SIGINT);
  handle(SIGTERM);
  return ends[0];
}

void lbox_cli_die_of(int number)
{
  signal(number, SIG_DFL);
  raise(number);
}
