/*
** A keeper is a subreaper: whatever its command starts, double-forked and with a session of its own
** too, is its descendant until the command's main process ends. Then it reports and goes; what is
*left
** in the background falls to lbox-init and lives on. Told to kill, it stays until no descendant is
*left.
*/
#include "server/init/keeper.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/init/protocol.h"

enum { KILL_SIGNAL = SIGUSR1, MAX_PROCESSES = 32768 };

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

static void run_command(const struct lbox_command *c)
{
  setsid();
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (chdir(c->cwd) != 0) {
    report(c->status_fd, LBOX_STATUS_NO_CWD, errno);
    _exit(127);
  }
  for (int i = 0; i < 3; i++)
    dup2(c->fds[i], i);
  prctl(PR_SET_DUMPABLE, 1);
  environ = c->env; /* the program is looked for on the command's own PATH */
  execvp(c->argv[0], c->argv);
  report(c->status_fd, LBOX_STATUS_FAILED, errno);
  _exit(127);
}

/* Parent of every live process, by pid; 0: no such process. */
static int *read_parents(void)
{
  int *parents = calloc(MAX_PROCESSES, sizeof *parents);
  DIR *proc = parents ? opendir("/proc") : NULL;
  const struct dirent *entry;
  while (proc && (entry = readdir(proc))) {
    char path[64], text[512];
    int pid = atoi(entry->d_name);
    if (!isdigit((unsigned char)entry->d_name[0]) || pid <= 0 || pid >= MAX_PROCESSES)
      continue;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
      close(fd);
    if (n <= 0)
      continue;
    text[n] = 0;
    /* pid (name) state ppid: the name may hold anything, so from its last parenthesis on */
    const char *after = strrchr(text, ')');
    if (after && strlen(after) > 4)
      parents[pid] = atoi(after + 4);
  }
  if (proc)
    closedir(proc);
  return parents;
}

static bool descends(const int *parents, int pid, int from)
{
  for (int steps = 0; pid > 1 && pid < MAX_PROCESSES && steps < MAX_PROCESSES; steps++) {
    if (parents[pid] == from)
      return true;
    pid = parents[pid];
  }
  return false;
}

/* Kills every descendant that is there now; new ones are found by the next call. */
static void kill_descendants(void)
{
  int *parents = read_parents();
  int self = getpid();
  for (int pid = 2; parents && pid < MAX_PROCESSES; pid++) {
    if (parents[pid] && descends(parents, pid, self))
      kill(pid, SIGKILL);
  }
  free(parents);
}

/* Reaps until the main process has ended and, when killing, until nobody is left. */
static void keep(int main_pid, int status_fd)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, KILL_SIGNAL);
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
      break;
    if (killing) {
      kill_descendants();
      struct timespec moment = {0, 2000000};
      sigtimedwait(&set, NULL, &moment);
      continue;
    }
    siginfo_t info;
    if (sigwaitinfo(&set, &info) == KILL_SIGNAL && info.si_pid == 1)
      killing = true;
  }
  if (WIFSIGNALED(status))
    report(status_fd, LBOX_STATUS_SIGNALED, WTERMSIG(status));
  else
    report(status_fd, LBOX_STATUS_EXITED, WEXITSTATUS(status));
}

int lbox_keeper_start(const struct lbox_command *c, int control_fd, int signal_fd)
{
  int keeper = fork();
  if (keeper != 0)
    return keeper;

  close(control_fd);
  close(signal_fd);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, KILL_SIGNAL);
  sigprocmask(SIG_SETMASK, &set, NULL);
  int pid = fork();
  if (pid == 0)
    run_command(c);
  for (int i = 0; i < 3; i++)
    close(c->fds[i]);
  if (pid < 0)
    report(c->status_fd, LBOX_STATUS_FAILED, errno);
  else
    keep(pid, c->status_fd);
  _exit(0);
}

void lbox_keeper_kill(int keeper)
{
  kill(keeper, KILL_SIGNAL);
}
