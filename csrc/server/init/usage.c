#include "server/init/usage.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct used {
  int pid;
  uint64_t bytes;
};

struct list {
  struct used *items; /* owned */
  size_t count, size;
};

/* The start of a small file of process `pid`; its length, -1: there is none. */
static ssize_t read_of(int proc, int pid, const char *name, char *text, size_t size)
{
  char path[64];
  snprintf(path, sizeof path, "%d/%s", pid, name);
  int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  ssize_t n = read(fd, text, size - 1);
  close(fd);
  text[n > 0 ? n : 0] = 0;
  return n;
}

/* Its own and what it has of a parent's: too much after a fork. */
static uint64_t own(int proc, int pid)
{
  char text[128];
  uint64_t all, shared;
  bool known = read_of(proc, pid, "statm", text, sizeof text) > 0 &&
               sscanf(text, "%*u %" SCNu64 " %" SCNu64, &all, &shared) == 2 && all > shared;
  return known ? (all - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static uint64_t field_kb(const char *text, const char *name)
{
  uint64_t kb = 0;
  const char *at = strstr(text, name);
  if (at)
    sscanf(at + strlen(name), " %" SCNu64, &kb);
  return kb * 1024;
}

/* Its share of the memory that would be free without it; pages of files are the cache's. */
static uint64_t share(int proc, int pid)
{
  char text[2048];
  if (read_of(proc, pid, "smaps_rollup", text, sizeof text) <= 0)
    return own(proc, pid);
  if (!strstr(text, "Pss_Anon:"))
    return field_kb(text, "\nPss:");
  return field_kb(text, "Pss_Anon:") + field_kb(text, "Pss_Shmem:") + field_kb(text, "SwapPss:");
}

/* Every process of the box but lbox-init, with what `measure` says of it. False: no memory. */
static bool take_all(int proc, struct list *list, uint64_t (*measure)(int, int))
{
  list->count = 0;
  int copy = openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
  if (!dir) {
    if (copy >= 0)
      close(copy);
    return copy < 0 && errno == ENOENT; /* the box has ended */
  }
  bool ok = true;
  const struct dirent *entry;
  while (ok && (entry = readdir(dir))) {
    int pid = isdigit((unsigned char)*entry->d_name) ? atoi(entry->d_name) : 0;
    if (pid <= 1)
      continue;
    if (list->count == list->size) {
      size_t size = list->size ? list->size * 2 : 64;
      struct used *items = realloc(list->items, size * sizeof *items);
      ok = items != NULL;
      if (!ok)
        break;
      list->items = items;
      list->size = size;
    }
    list->items[list->count++] = (struct used){pid, measure(proc, pid)};
  }
  closedir(dir);
  return ok;
}

/* A directory of /proc serves as the descriptor of its process. */
static void kill_one(int proc, int pid)
{
  char path[16];
  snprintf(path, sizeof path, "%d", pid);
  int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    close(fd);
  }
}

static int most_first(const void *a, const void *b)
{
  const struct used *left = a, *right = b;
  return (left->bytes < right->bytes) - (left->bytes > right->bytes);
}

int lbox_usage_keep(int proc, uint64_t limit, bool quick, struct lbox_usage *usage)
{
  struct list list = {0};
  uint64_t left = 0;
  if (!take_all(proc, &list, quick ? own : share)) {
    free(list.items);
    return ENOMEM;
  }
  if (list.count > 0)
    qsort(list.items, list.count, sizeof *list.items, most_first);
  for (size_t i = 0; i < list.count; i++)
    left += list.items[i].bytes;
  for (size_t i = 0; i < list.count && left > limit; i++) {
    if (i == 0) {
      ssize_t n = read_of(proc, list.items[i].pid, "comm", usage->name, sizeof usage->name);
      usage->name[n > 0 && usage->name[n - 1] == '\n' ? n - 1 : n > 0 ? n : 0] = 0;
      usage->bytes = list.items[i].bytes;
    }
    kill_one(proc, list.items[i].pid);
    left -= list.items[i].bytes;
    usage->killed++;
  }
  free(list.items);
  return 0;
}
