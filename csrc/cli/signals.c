/*
** Signals for scripts, told by a pipe: the first SIGINT, SIGTERM and SIGHUP, so that the loop can
** cancel what is going on (another one ends the program at once), and every SIGQUIT. What was
** ignored when the program started stays ignored, as under nohup.
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
  if (write(pipe_end, &byte, 1) != 1 && number != SIGQUIT)
    raise(number); /* the handler is gone already */
  errno = code;
}

static void handle(int number, unsigned flags)
{
  struct sigaction action = {.sa_handler = tell, .sa_flags = (int)(SA_RESTART | flags)}, old;
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
  handle(SIGINT, SA_RESETHAND);
  handle(SIGTERM, SA_RESETHAND);
  handle(SIGHUP, SA_RESETHAND); /* the terminal was closed */
  handle(SIGQUIT, 0);
  return ends[0];
}

void lbox_cli_die_of(int number)
{
  signal(number, SIG_DFL);
  raise(number);
}
