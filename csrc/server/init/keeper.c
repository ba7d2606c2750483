/*
** A keeper is a subreaper: whatever its command starts, double-forked and with a session of its own
** too, is its descendant until the command's main process ends. Then it reports and goes; what is
*left
** in the background falls to lbox-init and lives on. Told to kill, it stays until no descendant is
*left.
**
** A keeper has the box's uid, so programs of the box can stop or kill it, though neither trace nor
** read it. They gain nothing: lbox-init then kills everything that has no keeper.
*/
#include "server/init/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/init/processes.h"
#include "server/init/protocol.h"

/* --- in the keeper -----------------------------------------------------------------------------
 */

static void report(int fd, uint32_t kind, int value)
{
  struct rusage usage = {0};
  getrusage(RUSAGE_CHILDREN, &usage);
  uint64_t us = ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * 1000000 +
                (uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec;
  struct lbox_status status = {kind, value, us * 1000, (uint64_t)usage.ru_maxrss * 1024};
  while (write(fd, &status, sizeof status) < 0 && errno == EINTR)
    ;
}

struct failure {
  uint32_t kind;
  int code;
};

/* In the vfork child, on the keeper's memory: becomes the command, or says why not. */
static void run_command(const struct lbox_command *c, volatile struct failure *failure)
{
  setsid();
  for (int i = 0; i < 3; i++)
    dup2(c->fds[i], i);
  failure->kind = LBOX_STATUS_NO_CWD;
  if (chdir(c->cwd) == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    failure->kind = LBOX_STATUS_FAILED;
    environ = c->env; /* its PATH is the one to search */
    execvp(c->argv[0], c->argv);
  }
  failure->code = errno;
  _exit(127);
}

/* Reaps until the main process has ended and, when killing, until nobody is left. */
static int keep(int main_pid, const sigset_t *set)
{
  bool killing = false, ended = false;
  int status = 0;
  for (;;) {
    int pid, each;
    while ((pid = waitpid(-1, &each, WNOHANG)) > 0) {
      if (pid == main_pid) {
        ended = true;
        status = each;
      }
    }
    if (ended && (!killing || (pid < 0 && errno == ECHILD)))
      return status;
    if (killing)
      lbox_processes_end(getpid(), NULL);
    siginfo_t info;
    if (sigwaitinfo(set, &info) != LBOX_KEEPER_SIGNAL)
      continue;
    int signal = info.si_value.sival_int;
    if (signal < 1 || signal > 64 || signal == SIGKILL)
      killing = true;
    else
      lbox_processes_signal(getpid(), NULL, signal);
  }
}

static void keeper(const struct lbox_command *c)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, LBOX_KEEPER_SIGNAL);
  sigprocmask(SIG_SETMASK, &set, NULL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);

  volatile struct failure failure = {0, 0};
  int pid = vfork();
  if (pid == 0)
    run_command(c, &failure);
  if (pid < 0) {
    failure.kind = LBOX_STATUS_FAILED;
    failure.code = errno;
  }
  if (failure.code != 0) {
    report(c->status_fd, failure.kind, failure.code);
    return;
  }
  /* The command alone has its pipes from here on: they end when it ends. */
  for (int i = 0; i < 3; i++)
    close(c->fds[i]);
  report(c->status_fd, LBOX_STATUS_STARTED, pid);
  int status = keep(pid, &set);
  if (WIFSIGNALED(status))
    report(c->status_fd, LBOX_STATUS_SIGNALED, WTERMSIG(status));
  else
    report(c->status_fd, LBOX_STATUS_EXITED, WEXITSTATUS(status));
}

/* --- in lbox-init ------------------------------------------------------------------------------
 */

static struct {
  int *pids; /* of the keepers that are alive or not yet reaped */
  size_t count, size;
  bool purging; /* what has no keeper is being killed */
} keepers;

static bool is_keeper(int pid)
{
  for (size_t i = 0; i < keepers.count; i++) {
    if (keepers.pids[i] == pid)
      return true;
  }
  return false;
}

int lbox_keeper_start(const struct lbox_command *c, const int *fds, int fd_count)
{
  if (keepers.count == keepers.size) {
    size_t size = keepers.size ? keepers.size * 2 : 16;
    int *pids = realloc(keepers.pids, size * sizeof *pids);
    if (!pids)
      return -1;
    keepers.pids = pids;
    keepers.size = size;
  }
  int pid = fork();
  if (pid == 0) {
    for (int i = 0; i < fd_count; i++)
      close(fds[i]);
    keeper(c);
    _exit(0);
  }
  if (pid > 0)
    keepers.pids[keepers.count++] = pid;
  return pid;
}

bool lbox_keeper_kill(int pid, int signal, bool force)
{
  if (!is_keeper(pid))
    return false;
  if (force)
    return kill(pid, SIGKILL) == 0;
  union sigval value = {.sival_int = signal};
  sigqueue(pid, LBOX_KEEPER_SIGNAL, value);
  kill(pid, SIGCONT); /* in case a program of the box stopped it */
  return true;
}

void lbox_keeper_reap(void)
{
  int pid, status;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    for (size_t i = 0; i < keepers.count; i++) {
      if (keepers.pids[i] == pid) {
        keepers.pids[i] = keepers.pids[--keepers.count];
        keepers.purging = keepers.purging || WIFSIGNALED(status);
        break;
      }
    }
  }
  if (keepers.purging)
    keepers.purging = lbox_processes_end(getpid(), is_keeper) > 0;
}
