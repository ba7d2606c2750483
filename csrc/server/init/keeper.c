/*
** A keeper is a subreaper: whatever its command starts, double-forked and with a session of its own
** too, is its descendant until the command's main process ends. Then it reports and goes; what is
** left in the background falls to lbox-init and lives on. Killing is up to lbox-init, which cannot
** be stopped: it marks the keeper, who then stays until no descendant is left, and kills what
** descends from it until the keeper has gone.
**
** A keeper has the box's uid, so programs of the box can stop or kill it, though neither trace nor
** read it. They gain nothing: lbox-init continues it, or kills everything that has no keeper.
*/
#include "server/init/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/init/freeze.h"
#include "server/init/processes.h"
#include "server/init/protocol.h"

/* Descriptors that a process of a command may have, and may raise that to. */
enum { FILES = 1024, FILES_MAX = 64 * 1024 };

/* --- in the keeper ---------------------------------------------------------------------------- */

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

/* What is usual elsewhere, and at most half of what lbox-init has. */
static void limit_files(void)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return;
  rlim_t half = limit.rlim_max / 2;
  limit.rlim_max = half < FILES_MAX ? half : FILES_MAX;
  limit.rlim_cur = half < FILES ? half : FILES;
  setrlimit(RLIMIT_NOFILE, &limit);
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
  ioctl(0, TIOCSCTTY, 0); /* fails when it is no terminal */
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

static enum lbox_fate fate_in_keeper(int pid)
{
  return pid == getpid() ? LBOX_DOOMED : pid == 1 ? LBOX_SPARED : LBOX_AS_PARENT;
}

static bool is_pending(int signal)
{
  sigset_t set;
  return sigpending(&set) == 0 && sigismember(&set, signal) == 1;
}

/* Reaps until the main process has ended and, when told to stay, until nobody is left. */
static int keep(int main_pid, const sigset_t *set)
{
  bool stay = false, ended = false;
  int status = 0;
  for (;;) {
    siginfo_t info;
    int signal = sigwaitinfo(set, &info), passed_on = info.si_value.sival_int;
    if (signal == LBOX_KEEPER_PASS_ON && passed_on > 0 && passed_on <= 64)
      lbox_processes_signal(fate_in_keeper, passed_on);
    int pid, each;
    while ((pid = waitpid(-1, &each, WNOHANG)) > 0) {
      if (pid == main_pid) {
        ended = true;
        status = each;
      }
    }
    /* We are told before the first is killed, but may see that first. */
    stay = stay || signal == LBOX_KEEPER_STAY || is_pending(LBOX_KEEPER_STAY);
    if (ended && (!stay || (pid < 0 && errno == ECHILD)))
      return status;
  }
}

static void keeper(const struct lbox_command *c)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, LBOX_KEEPER_STAY);
  sigaddset(&set, LBOX_KEEPER_PASS_ON);
  sigprocmask(SIG_SETMASK, &set, NULL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  limit_files();

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

/* --- in lbox-init ----------------------------------------------------------------------------- */

enum {
  RETRY_MS = 50,  /* between two attempts at killing */
  REAP_MAX = 1000 /* children looked at before the server is listened to again */
};

struct keeper {
  int pid;
  bool killing; /* its command is being killed */
};

static struct {
  struct keeper *list; /* those alive or not yet reaped */
  size_t count, size;
  bool purging; /* what has no keeper is being killed */
  int64_t due;  /* when to kill next, if there is anything to kill */
} keepers;

static struct keeper *find(int pid)
{
  for (size_t i = 0; i < keepers.count; i++) {
    if (keepers.list[i].pid == pid)
      return &keepers.list[i];
  }
  return NULL;
}

static enum lbox_fate fate(int pid)
{
  const struct keeper *k = find(pid);
  if (pid == getpid())
    return keepers.purging ? LBOX_DOOMED : LBOX_SPARED;
  return !k ? LBOX_AS_PARENT : k->killing ? LBOX_DOOMED : LBOX_SPARED;
}

int lbox_keeper_start(const struct lbox_command *c, const struct pollfd *ours, size_t count)
{
  if (keepers.count == keepers.size) {
    size_t size = keepers.size ? keepers.size * 2 : 16;
    struct keeper *list = realloc(keepers.list, size * sizeof *list);
    if (!list)
      return -1;
    keepers.list = list;
    keepers.size = size;
  }
  int pid = fork();
  if (pid == 0) {
    for (size_t i = 0; i < count; i++)
      close(ours[i].fd);
    keeper(c);
    _exit(0);
  }
  if (pid > 0)
    keepers.list[keepers.count++] = (struct keeper){.pid = pid};
  return pid;
}

bool lbox_keeper_kill(int pid, int signal, bool force)
{
  struct keeper *k = find(pid);
  if (!k)
    return false;
  if (force)
    return kill(pid, SIGKILL) == 0;
  if (signal != SIGKILL) {
    union sigval value = {.sival_int = signal};
    return sigqueue(pid, LBOX_KEEPER_PASS_ON, value) == 0;
  }
  k->killing = true;
  keepers.due = 0;
  bool told = kill(pid, LBOX_KEEPER_STAY) == 0;
  if (lbox_is_frozen())
    kill(pid, SIGCONT); /* it has to reap what is killed */
  return told;
}

/* Reaps what has ended. A keeper that was stopped could not tell how its command ended. True: there
   may be more. */
static bool reap(void)
{
  int pid = 0, status;
  for (int i = 0; i < REAP_MAX && (pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0; i++) {
    struct keeper *k = find(pid);
    if (k && WIFSTOPPED(status) && (k->killing || !lbox_is_frozen()))
      kill(pid, SIGCONT);
    if (!k || WIFSTOPPED(status))
      continue;
    *k = keepers.list[--keepers.count];
    if (WIFSIGNALED(status)) {
      keepers.purging = true;
      keepers.due = 0;
    }
  }
  return pid > 0;
}

/* Whether there is anything to kill. */
static bool is_killing(void)
{
  bool any = keepers.purging;
  for (size_t i = 0; i < keepers.count; i++)
    any = any || keepers.list[i].killing;
  return any;
}

int lbox_keeper_tend(void)
{
  bool more = reap();
  if (!is_killing())
    return more ? 0 : -1;
  int64_t now = lbox_now_ms();
  if (now >= keepers.due) {
    if (lbox_processes_end(fate) == 0)
      keepers.purging = false;
    now = lbox_now_ms();
    keepers.due = now + RETRY_MS;
  }
  return more ? 0 : (int)(keepers.due - now);
}
