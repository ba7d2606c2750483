/*
** lbox.server.posix: what a box uses. It is seen through the /proc of its own pid namespace, which
** `box_proc` opens once: it holds the box's processes and no other, and a number in it never means
** a process of the host.
*/
#include "posix.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_ROUNDS = 20, FILE_BYTES = 4096 };

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

static uint64_t resident(int proc, int pid)
{
  char path[32], text[128];
  uint64_t pages = 0;
  snprintf(path, sizeof path, "%d/statm", pid);
  int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  if (fd >= 0)
    close(fd);
  text[n > 0 ? n : 0] = 0;
  return sscanf(text, "%*u %" SCNu64, &pages) == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* A directory of /proc serves as the descriptor of its process. */
static uint64_t kill_one(int proc, int pid)
{
  char path[16];
  snprintf(path, sizeof path, "%d", pid);
  int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return 0;
  syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
  close(fd);
  return 1;
}

/* The sum of what `fn` returns for each process of the box but lbox-init, and how many there are.
 */
static uint64_t sum(int proc, uint64_t (*fn)(int, int), lua_Integer *count)
{
  uint64_t total = 0;
  int copy = openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
  if (!dir && copy >= 0)
    close(copy);
  *count = 0;
  const struct dirent *entry;
  while (dir && (entry = readdir(dir))) {
    int pid = isdigit((unsigned char)*entry->d_name) ? atoi(entry->d_name) : 0;
    if (pid > 1) {
      total += fn(proc, pid);
      ++*count;
    }
  }
  if (dir)
    closedir(dir);
  return total;
}

/* usage(fd of box_proc) -> bytes that its processes have resident, what they share counted for
   each: quick, and never too little; how many there are */
int lbox__l_usage(lua_State *L)
{
  lua_Integer count;
  uint64_t bytes = sum(lbox__check_fd(L, 1), resident, &count);
  lua_pushinteger(L, (lua_Integer)bytes);
  lua_pushinteger(L, count);
  return 2;
}

/* kill_all(fd of box_proc) -> how many: everything in the box but lbox-init */
int lbox__l_kill_all(lua_State *L)
{
  lua_Integer most = 0, count = 1;
  int proc = lbox__check_fd(L, 1);
  /* Once more for those that were started meanwhile; one that is to be killed starts none. */
  for (int round = 0; round < MAX_ROUNDS && count > 0; round++) {
    sum(proc, kill_one, &count);
    most = count > most ? count : most;
  }
  lua_pushinteger(L, most);
  return 1;
}

/* disk(path) -> bytes that are free for us in its file system, bytes of it, bytes that are taken. A
   file counts as FILE_BYTES besides its content, where there can be only so many files. */
int lbox__l_disk(lua_State *L)
{
  struct statvfs fs;
  if (statvfs(luaL_checkstring(L, 1), &fs) != 0)
    return lbox__fail(L);
  uint64_t free = (uint64_t)fs.f_bavail * fs.f_frsize, files = (uint64_t)fs.f_favail * FILE_BYTES;
  lua_pushinteger(L, (lua_Integer)(fs.f_files > 0 && files < free ? files : free));
  lua_pushinteger(L, (lua_Integer)(fs.f_blocks * fs.f_frsize));
  lua_pushinteger(L, (lua_Integer)((fs.f_blocks - fs.f_bfree) * fs.f_frsize +
                                   (fs.f_files - fs.f_ffree) * FILE_BYTES));
  return 3;
}
