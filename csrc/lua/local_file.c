/* Files of this machine as Lua objects. What goes wrong in use is nil and a reason that does not
   name the path: the caller knows what its user calls it. */
#include <string.h>
#include <unistd.h>

#include "binding.h"
#include "core/local_file.h"

#define DIRECTORY_TYPE "lbox.local_directory"
#define FILE_TYPE      "lbox.local_file"

struct directory {
  bool open;
  int fd; /* owned while it is open */
};

struct file {
  bool open;
  struct lbox_local_file file; /* owned while it is open */
};

static int failed(lua_State *L, const struct lbox_err *err)
{
  lua_pushnil(L);
  lua_pushstring(L, err->text);
  return 2;
}

static int succeeded(lua_State *L)
{
  lua_pushboolean(L, 1);
  return 1;
}

static const char *check_path(lua_State *L, int index)
{
  size_t len;
  const char *path = luaL_checklstring(L, index, &len);
  luaL_argcheck(L, strlen(path) == len, index, "a path without NUL");
  return path;
}

/* core.file_size(path) -> bytes of a regular file that can be read; or nil, why */
int lbox__l_file_size(lua_State *L)
{
  struct lbox_err err;
  struct stat facts;
  int fd = lbox_local_read(check_path(L, 1), &facts, &err);
  if (fd < 0)
    return failed(L, &err);
  close(fd);
  lua_pushinteger(L, (lua_Integer)facts.st_size);
  return 1;
}

/* core.is_directory(path) -> boolean */
int lbox__l_is_directory(lua_State *L)
{
  struct stat facts;
  lua_pushboolean(L, stat(check_path(L, 1), &facts) == 0 && S_ISDIR(facts.st_mode));
  return 1;
}

/* --- directories ------------------------------------------------------------------------------ */

static struct directory *check_directory(lua_State *L)
{
  struct directory *d = lbox__self(L, DIRECTORY_TYPE);
  if (!d->open)
    luaL_error(L, "lbox.core: the directory is closed");
  return d;
}

static int opened(lua_State *L, struct directory *d, int fd, const struct lbox_err *err)
{
  d->fd = fd;
  d->open = fd >= 0;
  return d->open ? 1 : failed(L, err);
}

/* core.directory(path) -> directory, made with its parents when it is missing; or nil, why */
int lbox__l_directory(lua_State *L)
{
  struct lbox_err err;
  const char *path = check_path(L, 1);
  struct directory *d = lbox__new_object(L, DIRECTORY_TYPE, sizeof *d);
  return opened(L, d, lbox_local_directory(path, &err), &err);
}

/* directory:enter(name) -> the directory of that name in it, made when it is missing; or nil, why
 */
static int l_enter(lua_State *L)
{
  struct lbox_err err;
  const struct directory *at = check_directory(L);
  const char *name = check_path(L, 2);
  struct directory *d = lbox__new_object(L, DIRECTORY_TYPE, sizeof *d);
  return opened(L, d, lbox_local_enter(at->fd, name, &err), &err);
}

/* directory:create(name) -> file, which is there once it is committed; or nil, why */
static int l_create(lua_State *L)
{
  struct lbox_err err;
  const struct directory *at = check_directory(L);
  const char *name = check_path(L, 2);
  struct file *f = lbox__new_object(L, FILE_TYPE, sizeof *f);
  f->file.fd = f->file.directory = -1;
  f->open = lbox_local_create(&f->file, at->fd, name, &err);
  return f->open ? 1 : failed(L, &err);
}

static int l_close(lua_State *L)
{
  struct directory *d = luaL_checkudata(L, 1, DIRECTORY_TYPE);
  if (d->open)
    close(d->fd);
  d->open = false;
  return 0;
}

/* --- files --------------------------------------------------------------------------------------
 */

static struct file *check_file(lua_State *L)
{
  struct file *f = lbox__self(L, FILE_TYPE);
  if (!f->open)
    luaL_error(L, "lbox.core: the file is closed");
  return f;
}

/* file:write(bytes) -> true; or nil, why */
static int l_write(lua_State *L)
{
  struct lbox_err err;
  struct file *f = check_file(L);
  size_t n;
  const char *bytes = luaL_checklstring(L, 2, &n);
  return lbox_local_write(&f->file, bytes, n, &err) ? succeeded(L) : failed(L, &err);
}

/* file:commit() -> true: it has its name; or nil, why: it is gone */
static int l_commit(lua_State *L)
{
  struct lbox_err err;
  struct file *f = check_file(L);
  f->open = false;
  return lbox_local_commit(&f->file, &err) ? succeeded(L) : failed(L, &err);
}

/* file:discard(), as often as one likes, also after commit */
static int l_discard(lua_State *L)
{
  struct file *f = luaL_checkudata(L, 1, FILE_TYPE);
  if (f->open)
    lbox_local_discard(&f->file);
  f->open = false;
  return 0;
}

void lbox__open_local_file(lua_State *L)
{
  static const luaL_Reg in_directory[] = {
      {"enter", l_enter}, {"create", l_create}, {"close", l_close}, {NULL, NULL}};
  static const luaL_Reg on_file[] = {
      {"write", l_write}, {"commit", l_commit}, {"discard", l_discard}, {NULL, NULL}};
  static const luaL_Reg directory_meta[] = {{"__gc", l_close}, {NULL, NULL}};
  static const luaL_Reg file_meta[] = {{"__gc", l_discard}, {NULL, NULL}};
  lbox__new_type(L, DIRECTORY_TYPE, in_directory, directory_meta);
  lbox__new_type(L, FILE_TYPE, on_file, file_meta);
}
