/*
** The binding: argument checks, userdata and error conversion; nothing clever. Every userdata is a
** struct that is zeroed and has its metatable before a C object is made for it, so that __gc is safe
** at any point. Wrong arguments raise a string; everything that can fail in use is a value.
*/
#ifndef LBOX_BINDING_H
#define LBOX_BINDING_H

#include "compat.h"
#include <stdbool.h>
#include <stddef.h>

#include "core/engine.h"

/* The engine behind the userdata at `index`, borrowed from it; raises for anything else, for a closed
   engine and in a forked child. */
struct lbox_engine *lbox_lua_engine(lua_State *L, int index);

/* Makes a metatable `name` with methods (also its __index) and metamethods. Leaves the stack as is. */
void lbox__new_type(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

/* Pushes a zeroed userdata of that type and returns its memory. */
void *lbox__new_object(lua_State *L, const char *type, size_t size);

/* Raises "lbox.core: <text>" for an error of the core. */
int lbox__raise(lua_State *L, const struct lbox_err *err);

void lbox__open_engine(lua_State *L);
void lbox__open_watch(lua_State *L);
void lbox__open_request(lua_State *L);
void lbox__open_parser(lua_State *L);

int lbox__l_engine_new(lua_State *L);
int lbox__l_engine_request(lua_State *L); /* engine:request(options) */
int lbox__l_engine_watch(lua_State *L);   /* engine:watch(fd) */
int lbox__l_sse_parser(lua_State *L);
int lbox__l_exec_parser(lua_State *L);

#endif
