/*
** lbox: orchestrate sandboxed AI coding agents from Lua. The one public header.
*/
#ifndef LBOX_H
#define LBOX_H

#define LBOX_VERSION "0.1.0"

#define LBOX_VERSION_MAJOR 0
#define LBOX_VERSION_MINOR 1
#define LBOX_VERSION_PATCH 0

#if defined(__GNUC__)
#define LBOX_API __attribute__((visibility("default")))
#else
#define LBOX_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

/* The C module `lbox.core`: transport, streaming and the pollable engine below the Lua files. */
LBOX_API int luaopen_lbox_core(struct lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
