/* Shared by the files of lbox.server.posix. */
#ifndef LBOX_SERVER_POSIX_H
#define LBOX_SERVER_POSIX_H

#include <lauxlib.h>
#include <lua.h>

/* Returns nil, message, name for errno. */
int lbox__fail(lua_State *L);
int lbox__check_fd(lua_State *L, int index);

int lbox__l_kill(lua_State *L);
int lbox__l_spawn(lua_State *L);
int lbox__l_waitid(lua_State *L);

#endif
