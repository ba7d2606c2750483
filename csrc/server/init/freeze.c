#include "server/init/freeze.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/init/processes.h"

enum { PATIENCE_MS = 500, LOOK_NS = 500 * 1000 };

static struct {
  int *stopped_before; /* owned */
  size_t count, size;
  bool on;
} ice;

/* Calls `fn` for the number of each process, or of each thread of one, until it says no. */
static bool each(const char *path, bool (*fn)(int))
{
  DIR *dir = opendir(path);
  bool more = true;
  const struct dirent *entry;
  while (dir && more && (entry = readdir(dir))) {
    if (isdigit((unsigned char)*entry->d_name))
      more = fn(atoi(entry->d_name));
  }
  if (dir)
    closedir(dir);
  return more;
}

/* As /proc has it: R, S, D, T, Z …; 0 when there is none of that number any more. */
static char state_of(int id)
{
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", id, id);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  if (fd >= 0)
    close(fd);
  if (n <= 0)
    return 0;
  text[n] = 0;
  const char *after = strrchr(text, ')'); /* the name before may hold anything */
  return after && after[1] == ' ' ? after[2] : 0;
}

/* A thread has a place of its own in /proc, though none that a list of it shows. */
static bool is_still(int id)
{
  char state = state_of(id);
  return state == 0 || strchr("TtZXx", state);
}

static bool is_still_with_threads(int pid)
{
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  return pid == 1 || each(path, is_still);
}

static bool remember_stopped(int pid)
{
  if (pid == 1 || state_of(pid) != 'T')
    return true;
  if (ice.count == ice.size) {
    size_t size = ice.size ? ice.size * 2 : 16;
    int *list = realloc(ice.stopped_before, size * sizeof *list);
    if (!list)
      return false;
    ice.stopped_before = list;
    ice.size = size;
  }
  ice.stopped_before[ice.count++] = pid;
  return true;
}

static bool go_on(int pid)
{
  for (size_t i = 0; i < ice.count; i++) {
    if (ice.stopped_before[i] == pid)
      return true;
  }
  if (pid != 1)
    kill(pid, SIGCONT);
  return true;
}

int lbox_freeze(void)
{
  if (ice.on)
    return 0;
  ice.count = 0;
  if (!each("/proc", remember_stopped))
    return ENOMEM;
  if (kill(-1, SIGSTOP) != 0 && errno != ESRCH)
    return errno;
  ice.on = true;
  int64_t until = lbox_now_ms() + PATIENCE_MS;
  while (!each("/proc", is_still_with_threads) && lbox_now_ms() < until)
    nanosleep(&(struct timespec){0, LOOK_NS}, NULL);
  return 0;
}

void lbox_thaw(void)
{
  if (!ice.on)
    return;
  ice.on = false;
  each("/proc", go_on);
}

bool lbox_is_frozen(void)
{
  return ice.on;
}
