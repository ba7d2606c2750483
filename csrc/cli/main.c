/*
** lbox: the program. Opens a Lua state with our modules inside and hands the command line to
** lua/lbox/cli/main.lua, which decides everything else. What stands here is only what Lua cannot
** do: the state, the environment switch of -E, the embedded files, the last resort for errors.
*/
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua-cjson.h>
#include <lua.h>
#include <lualib.h>

#include "embedded.h"
#include "lbox/lbox.h"
#include "server/modules.h"
#include "signals.h"

enum { DIED_OF = 128 }; /* and a signal: the status of a script that one ended */

/* package.searchers entry: loads a module from the embedded files. */
static int search_embedded(lua_State *L)
{
  const char *name = luaL_checkstring(L, 1);
  for (const struct lbox_embedded *file = lbox_embedded; file->name; file++) {
    if (strcmp(file->name, name) != 0)
      continue;
    lua_pushfstring(L, "=%s", name);
    if (luaL_loadbufferx(L, file->bytes, file->size, lua_tostring(L, -1), "t") != LUA_OK)
      return lua_error(L);
    lua_pushliteral(L, ":embedded:");
    return 2;
  }
  lua_pushfstring(L, "no embedded file '%s'", name);
  return 1;
}

/* Our files come right after package.preload: a module of that name elsewhere is not ours. */
static void add_searcher(lua_State *L)
{
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers"); /* [package, searchers] */
  for (lua_Integer i = luaL_len(L, -1); i >= 2; i--) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushcfunction(L, search_embedded);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 2);
}

static void preload(lua_State *L, const char *name, lua_CFunction open)
{
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

static int l_init_program(lua_State *L)
{
  lua_pushlstring(L, lbox_init_program.bytes, lbox_init_program.size);
  return 1;
}

static int l_isatty(lua_State *L)
{
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* signals() -> the descriptor of signals.h, or nil */
static int l_signals(lua_State *L)
{
  int fd = lbox_cli_signals();
  if (fd < 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, fd);
  return 1;
}

/* lbox.program: what only the running program knows of itself. */
static int open_program(lua_State *L)
{
  static const luaL_Reg functions[] = {
      {"init_program", l_init_program}, {"isatty", l_isatty}, {"signals", l_signals}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}

static bool wants_no_environment(int argc, char **argv)
{
  for (int i = 1; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0; i++) {
    if (strcmp(argv[i], "-E") == 0)
      return true;
  }
  return false;
}

static int traceback(lua_State *L)
{
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

static int run(lua_State *L)
{
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);

  luaL_checkversion(L);
  if (wants_no_environment(argc, argv)) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  preload(L, "lbox.core", luaopen_lbox_core);
  preload(L, "lbox.program", open_program);
  preload(L, "lbox.server.httpd", luaopen_lbox_server_httpd);
  preload(L, "lbox.server.sqlite", luaopen_lbox_server_sqlite);
  preload(L, "lbox.server.posix", luaopen_lbox_server_posix);
  preload(L, "lbox.server.seccomp", luaopen_lbox_server_seccomp);
  preload(L, "cjson", luaopen_cjson);
  add_searcher(L);
  lua_gc(L, LUA_GCGEN, 0, 0);

  lua_getglobal(L, "require");
  lua_pushliteral(L, "lbox.cli.main");
  lua_call(L, 1, 1);
  lua_createtable(L, argc, 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_call(L, 1, 1); /* [status] */
  return 1;
}

int main(int argc, char **argv)
{
  /* A closed reader shows as a failed write, which says more than a silent death. */
  signal(SIGPIPE, SIG_IGN);

  lua_State *L = luaL_newstate();
  if (!L) {
    fputs("lbox: not enough memory\n", stderr);
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, traceback);
  lua_pushcfunction(L, run);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = EXIT_FAILURE;
  if (lua_pcall(L, 2, 1, 1) == LUA_OK)
    status = (int)lua_tointeger(L, -1);
  else
    fprintf(stderr, "lbox: %s\n", lua_tostring(L, -1));
  lua_close(L);
  if (status > DIED_OF)
    lbox_cli_die_of(status - DIED_OF);
  return status;
}
