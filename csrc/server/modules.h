/* The Lua modules of the local server, opened by the lbox program. */
#ifndef LBOX_SERVER_MODULES_H
#define LBOX_SERVER_MODULES_H

#include <lua.h>

int luaopen_lbox_server_httpd(lua_State *L);
int luaopen_lbox_server_posix(lua_State *L);
int luaopen_lbox_server_seccomp(lua_State *L);
int luaopen_lbox_server_sqlite(lua_State *L);

#endif
