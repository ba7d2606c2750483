/*
** Whoever kills a tree of processes races with it: what is started after one has looked is missed.
** A process with a signal pending cannot fork, so all are stopped before the first is killed: look,
** stop what is new, and look again until nobody is.
**
** That takes a few milliseconds, unless thousands of processes want the CPU as well: then it takes
** minutes, as one looks at them one by one and waits for all of them in between. In that case
** everything in the box is stopped, which is one system call that no fork escapes, and the looking
** is done in peace. The spared are continued afterwards. Most never notice, but an interactive
** shell would: hence only then.
*/
#include "server/init/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/init/freeze.h"

/* Fates besides those of the header: a process whose ancestors changed while they were read. */
enum { LOST = LBOX_DOOMED + 1 };

struct process {
  int pid, parent;
  bool root; /* it gives a fate to what descends from it, and has none */
  int fate;  /* its own and of what descends from it; LBOX_AS_PARENT: not known yet */
};

struct table {
  struct process *list; /* by pid */
  size_t count, size;
};

/* When everything is stopped: as soon as a CPU has so many processes waiting for it that a
   millisecond of looking takes a second, or when looking has taken long for whatever reason. */
enum { CROWD = 50, PATIENCE_MS = 100 };

/* How often one looks then; twice is usual. */
enum { MAX_ROUNDS = 8 };

int64_t lbox_now_ms(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- reading ---------------------------------------------------------------------------------- */

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

static bool append(struct table *t, struct process p)
{
  if (t->count == t->size) {
    size_t size = t->size ? t->size * 2 : 64;
    struct process *list = realloc(t->list, size * sizeof *list);
    if (!list)
      return false;
    t->list = list;
    t->size = size;
  }
  t->list[t->count++] = p;
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

/* Goes up to the first ancestor whose fate is known, then notes it on the way there, so that all
   walks together are short. */
static void settle(const struct table *t, struct process *p)
{
  struct process *top = p;
  for (size_t steps = 0; top && top->fate == LBOX_AS_PARENT && steps < t->count; steps++)
    top = find(t, top->parent);
  int fate = top && top->fate != LBOX_AS_PARENT ? top->fate : LOST;
  for (struct process *on = p; on && on->fate == LBOX_AS_PARENT; on = find(t, on->parent))
    on->fate = fate;
}

/* False: it is not whole, as the time was over before. */
static bool read_table(struct table *t, lbox_fate_fn fate, int64_t until)
{
  bool whole = true;
  t->count = 0;
  DIR *proc = opendir("/proc");
  if (!proc)
    return false;
  const struct dirent *entry;
  while (whole && (entry = readdir(proc))) {
    struct process p = {.pid = isdigit((unsigned char)*entry->d_name) ? atoi(entry->d_name) : 0};
    p.parent = p.pid > 0 ? read_parent(p.pid) : -1;
    if (p.parent < 0)
      continue;
    p.fate = (int)fate(p.pid);
    p.root = p.fate != LBOX_AS_PARENT;
    if (p.parent == 0 && !p.root)
      p.fate = LBOX_SPARED; /* put into the box from outside */
    whole = append(t, p) && lbox_now_ms() < until;
  }
  closedir(proc);
  if (t->count > 0)
    qsort(t->list, t->count, sizeof *t->list, by_pid);
  for (size_t i = 0; i < t->count; i++)
    settle(t, &t->list[i]);
  return whole;
}

/* --- signalling ------------------------------------------------------------------------------- */

static bool is_doomed(const struct process *p)
{
  return p->fate == LBOX_DOOMED && !p->root;
}

static int signal_doomed(const struct table *t, int signal)
{
  int count = 0;
  for (size_t i = 0; i < t->count; i++) {
    if (is_doomed(&t->list[i])) {
      kill(t->list[i].pid, signal);
      count++;
    }
  }
  return count;
}

void lbox_processes_signal(lbox_fate_fn fate, int signal)
{
  struct table t = {0};
  read_table(&t, fate, INT64_MAX);
  signal_doomed(&t, signal);
  free(t.list);
}

/* Whether every doomed process of `now` was known, and so stopped, before `now` was read. */
static bool nobody_new(const struct table *now, const struct table *before)
{
  for (size_t i = 0; i < now->count; i++) {
    const struct process *p = &now->list[i], *known = find(before, p->pid);
    if (p->fate == LOST || (is_doomed(p) && !(known && is_doomed(known))))
      return false;
  }
  return true;
}

/* Whether the CPUs are crowded, with processes of whatever box. */
static bool is_crowded(void)
{
  cpu_set_t cpus;
  int running = 0;
  FILE *load = fopen("/proc/loadavg", "re");
  if (!load || fscanf(load, "%*s %*s %*s %d/", &running) != 1)
    running = 0;
  if (load)
    fclose(load);
  return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && running / CPU_COUNT(&cpus) >= CROWD;
}

int lbox_processes_end(lbox_fate_fn fate)
{
  struct table now = {0}, before = {0};
  int64_t patience = lbox_now_ms() + (is_crowded() ? 0 : PATIENCE_MS);
  int rounds = 0; /* with everything stopped */
  bool done = false;
  while (!done && rounds < MAX_ROUNDS) {
    bool impatient = rounds > 0 || lbox_now_ms() >= patience;
    struct table swap = before;
    before = now;
    now = swap;
    if (impatient) {
      kill(-1, SIGSTOP);
      rounds++;
    }
    bool whole = read_table(&now, fate, impatient ? INT64_MAX : patience);
    if (!impatient)
      signal_doomed(&now, SIGSTOP);
    done = whole && nobody_new(&now, &before);
  }
  int count = signal_doomed(&now, SIGKILL);
  if (rounds > 0 && !lbox_is_frozen())
    kill(-1, SIGCONT);
  free(now.list);
  free(before.list);
  return count;
}
