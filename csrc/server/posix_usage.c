/*
** lbox.server.posix: what the processes of a box use. A box is seen through the /proc of its own
** pid namespace, which `box_proc` opens once: it holds the box's processes and no other, and a
** number in it never means a process of the host.
*/
#include "posix.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NAME_SIZE = 16, MAX_ROUNDS = 20 };

struct used {
  int pid;
  uint64_t bytes;
};

struct list {
  struct used *items; /* owned */
  size_t count, size;
};

/* box_proc(pid of lbox-init on the host) -> fd of its /proc; nil, why, errno name */
int lbox__l_box_proc(lua_State *L)
{
  char path[64];
  struct statfs fs;
  lua_Integer pid = luaL_checkinteger(L, 1);
  snprintf(path, sizeof path, "/proc/%lld/root/proc", (long long)pid);
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0 && (fstatfs(fd, &fs) != 0 || fs.f_type != PROC_SUPER_MAGIC)) {
    close(fd);
    errno = ENOTDIR;
    return lbox__fail(L);
  }
  return lbox__push_fd(L, fd);
}

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

/* Resident memory, with what it shares with others counted in full: quick, and never too little. */
static uint64_t resident(int proc, int pid)
{
  char text[128];
  uint64_t pages = 0;
  if (read_of(proc, pid, "statm", text, sizeof text) <= 0 ||
      sscanf(text, "%*u %" SCNu64, &pages) != 1)
    return 0;
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
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
    return resident(proc, pid);
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
    list->items[list->count++] = (struct used){pid, measure ? measure(proc, pid) : 0};
  }
  closedir(dir);
  return ok;
}

static uint64_t sum(const struct list *list)
{
  uint64_t bytes = 0;
  for (size_t i = 0; i < list->count; i++)
    bytes += list->items[i].bytes;
  return bytes;
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

static void push_name(lua_State *L, int proc, int pid)
{
  char name[NAME_SIZE + 2];
  ssize_t n = read_of(proc, pid, "comm", name, sizeof name);
  lua_pushlstring(L, name, n > 0 ? (size_t)n - (name[n - 1] == '\n') : 0);
}

/* keep_memory(fd of box_proc, limit in bytes) -> how many processes were killed, and of the largest
   of them its name and bytes. The largest go first, until the others are below the limit. */
int lbox__l_keep_memory(lua_State *L)
{
  struct list list = {0};
  int proc = lbox__check_fd(L, 1);
  uint64_t limit = (uint64_t)luaL_checkinteger(L, 2), left;
  lua_Integer killed = 0;
  bool ok = take_all(proc, &list, resident);
  left = sum(&list);
  if (ok && left > limit) {
    ok = take_all(proc, &list, share);
    left = sum(&list);
    if (list.count > 0)
      qsort(list.items, list.count, sizeof *list.items, most_first);
  }
  lua_settop(L, 0);
  lua_pushinteger(L, 0);
  if (ok && left > limit && list.count > 0) {
    push_name(L, proc, list.items[0].pid);
    lua_pushinteger(L, (lua_Integer)list.items[0].bytes);
  }
  for (size_t i = 0; ok && i < list.count && left > limit; i++) {
    kill_one(proc, list.items[i].pid);
    left -= list.items[i].bytes;
    killed++;
  }
  free(list.items);
  if (!ok) {
    errno = ENOMEM;
    return lbox__fail(L);
  }
  lua_pushinteger(L, killed);
  lua_replace(L, 1);
  return lua_gettop(L);
}

/* kill_all(fd of box_proc) -> how many: everything in the box but lbox-init */
int lbox__l_kill_all(lua_State *L)
{
  struct list list = {0};
  int proc = lbox__check_fd(L, 1);
  lua_Integer killed = 0;
  for (int round = 0; round < MAX_ROUNDS; round++) {
    if (!take_all(proc, &list, NULL) || list.count == 0)
      break;
    for (size_t i = 0; i < list.count; i++)
      kill_one(proc, list.items[i].pid);
    killed = (lua_Integer)list.count > killed ? (lua_Integer)list.count : killed;
  }
  free(list.items);
  lua_pushinteger(L, killed);
  return 1;
}

/* disk(path) -> bytes that are free for us in its file system, bytes of it */
int lbox__l_disk(lua_State *L)
{
  struct statvfs fs;
  if (statvfs(luaL_checkstring(L, 1), &fs) != 0)
    return lbox__fail(L);
  lua_pushinteger(L, (lua_Integer)(fs.f_bavail * fs.f_frsize));
  lua_pushinteger(L, (lua_Integer)(fs.f_blocks * fs.f_frsize));
  return 2;
}
