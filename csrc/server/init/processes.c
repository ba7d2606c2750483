#include "server/init/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum verdict { UNKNOWN, OURS, NOT_OURS };

struct process {
  int pid, parent;
  enum verdict verdict;
};

struct table {
  struct process *list; /* by pid */
  size_t count, size;
};

/* Rounds of stopping before killing starts regardless. Two are usual; a fork bomb needs more. */
enum { MAX_ROUNDS = 200 };

static int read_parent(int pid)
{
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0)
    return -1;
  text[n] = 0;
  /* pid (name) state parent …: the name may hold anything, so from its last parenthesis on */
  const char *after = strrchr(text, ')');
  return after && strlen(after) > 4 ? atoi(after + 4) : -1;
}

static bool append(struct table *t, int pid, int parent)
{
  if (t->count == t->size) {
    size_t size = t->size ? t->size * 2 : 64;
    struct process *list = realloc(t->list, size * sizeof *list);
    if (!list)
      return false;
    t->list = list;
    t->size = size;
  }
  t->list[t->count++] = (struct process){pid, parent, UNKNOWN};
  return true;
}

static int by_pid(const void *a, const void *b)
{
  const struct process *left = a, *right = b;
  return (left->pid > right->pid) - (left->pid < right->pid);
}

static struct process *find(const struct table *t, int pid)
{
  const struct process key = {.pid = pid};
  return t->count ? bsearch(&key, t->list, t->count, sizeof key, by_pid) : NULL;
}

static void read_table(struct table *t)
{
  t->count = 0;
  DIR *proc = opendir("/proc");
  if (!proc)
    return;
  const struct dirent *entry;
  while ((entry = readdir(proc))) {
    int pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
    int parent = pid > 0 ? read_parent(pid) : -1;
    if (parent >= 0 && !append(t, pid, parent))
      break;
  }
  closedir(proc);
  if (t->count > 0)
    qsort(t->list, t->count, sizeof *t->list, by_pid);
}

/* Walks up to the ancestor, to one that is spared or to an answer that is known; then notes the
   answer on the way there, so that all walks together are short. */
static enum verdict judge(const struct table *t, struct process *p, int ancestor,
                          lbox_spare_fn spare)
{
  enum verdict verdict = UNKNOWN;
  size_t steps = 0;
  const struct process *at = p;
  while (verdict == UNKNOWN) {
    if (at->verdict != UNKNOWN)
      verdict = at->verdict;
    else if (at->pid == ancestor || (spare && spare(at->pid)))
      verdict = NOT_OURS;
    else if (at->parent == ancestor)
      verdict = OURS;
    else
      at = steps++ < t->count ? find(t, at->parent) : NULL;
    if (!at)
      verdict = NOT_OURS;
  }
  for (struct process *on = p; on && on->verdict == UNKNOWN; on = find(t, on->parent)) {
    on->verdict = verdict;
    if (on == at)
      break;
  }
  return p->verdict;
}

static int signal_all(const struct table *t, int ancestor, lbox_spare_fn spare, int signal)
{
  int count = 0;
  for (size_t i = 0; i < t->count; i++) {
    if (judge(t, &t->list[i], ancestor, spare) == OURS) {
      kill(t->list[i].pid, signal);
      count++;
    }
  }
  return count;
}

int lbox_processes_signal(int ancestor, lbox_spare_fn spare, int signal)
{
  struct table t = {0};
  read_table(&t);
  int count = signal_all(&t, ancestor, spare, signal);
  free(t.list);
  return count;
}

int lbox_processes_end(int ancestor, lbox_spare_fn spare)
{
  struct table now = {0}, before = {0};
  int count = 0;
  for (int round = 0, fresh = 1; round < MAX_ROUNDS && fresh; round++) {
    read_table(&now);
    count = signal_all(&now, ancestor, spare, SIGSTOP);
    /* A process with a signal pending cannot fork: when nobody is new, nobody will come. */
    fresh = 0;
    for (size_t i = 0; i < now.count && !fresh; i++) {
      const struct process *known = find(&before, now.list[i].pid);
      fresh = now.list[i].verdict == OURS && !(known && known->verdict == OURS);
    }
    struct table swap = before;
    before = now;
    now = swap;
  }
  signal_all(&before, ancestor, spare, SIGKILL);
  free(now.list);
  free(before.list);
  return count;
}
