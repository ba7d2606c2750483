/* What differs between Lua 5.4 and LuaJIT, and is used here. */
#ifndef LBOX_COMPAT_H
#define LBOX_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM >= 504
#define LBOX_ABI "lua5.4"
/* With one user value, by which an object can keep another alive. */
#define lbox_newuserdata(L, size) lua_newuserdatauv((L), (size), 1)
#define lbox_rawlen(L, i)         lua_rawlen((L), (i))
#define lbox_checkversion(L)      luaL_checkversion(L)
#else
#define LBOX_ABI                  "luajit"
#define lbox_newuserdata(L, size) lua_newuserdata((L), (size))
#define lbox_rawlen(L, i)         lua_objlen((L), (i))
/* Refers to a symbol that only the 5.1 family has, so that a wrong pairing fails when loaded. */
#define lbox_checkversion(L)      ((void)lua_objlen((L), LUA_REGISTRYINDEX))
#endif

#endif
