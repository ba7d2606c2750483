/*
** lbox.server.posix: the directory that a box sees as /. Its programs may have left anything in it,
** and bubblewrap follows a symlink where it is to mount something. So what it mounts on is made
** sure of before each start: by names directly in that directory, one at a time, no link followed.
** Nothing of the box is running then.
*/
#include "posix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether a directory, or the link that is wanted, is there. */
static int is_right(int root, const char *name, const char *link, const struct stat *st)
{
  char target[256];
  if (!link)
    return S_ISDIR(st->st_mode);
  if (!S_ISLNK(st->st_mode))
    return 0;
  ssize_t n = readlinkat(root, name, target, sizeof target);
  return n == (ssize_t)strlen(link) && memcmp(target, link, (size_t)n) == 0;
}

/* Gets what is in the way out of it. A directory is kept, under another name. */
static int clear(int root, const char *name, const struct stat *st)
{
  if (!S_ISDIR(st->st_mode))
    return unlinkat(root, name, 0);
  unsigned char random[8];
  char to[64];
  if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
    return -1;
  int n = snprintf(to, sizeof to, "%.24s.moved-", name);
  for (size_t i = 0; i < sizeof random; i++)
    n += snprintf(to + n, sizeof to - (size_t)n, "%02x", random[i]);
  return renameat2(root, name, root, to, RENAME_NOREPLACE);
}

static int make_sure(int root, const char *name, const char *link)
{
  struct stat st;
  if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
    errno = EINVAL;
    return -1;
  }
  if (fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    if (is_right(root, name, link, &st))
      return 0;
    if (clear(root, name, &st) != 0)
      return -1;
  } else if (errno != ENOENT) {
    return -1;
  }
  return link ? symlinkat(link, root, name) : mkdirat(root, name, 0755);
}

/* mount_points(root, { directory names… }, { [link name] = target }) -> true */
int lbox__l_mount_points(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  char self[64];
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  int root = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (root < 0)
    return lbox__fail(L);
  /* The box may have closed its own root; whoever starts it has to get in. */
  snprintf(self, sizeof self, "/proc/self/fd/%d", root);
  int result = chmod(self, 0755);
  for (lua_Integer i = 1; result == 0 && lua_rawgeti(L, 2, i) == LUA_TSTRING; i++) {
    result = make_sure(root, lua_tostring(L, -1), NULL);
    lua_pop(L, 1);
  }
  lua_settop(L, 3);
  for (lua_pushnil(L); result == 0 && lua_next(L, 3); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING)
      result = make_sure(root, lua_tostring(L, -2), lua_tostring(L, -1));
  }
  int code = errno;
  close(root);
  errno = code;
  return lbox__done(L, result);
}
