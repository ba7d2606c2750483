/*
** The binding: argument checks, userdata and error conversion; nothing clever. Every userdata is a
** struct that is zeroed and has its metatable before a C object is made for it, so that __gc is
** safe at any point. Wrong arguments raise a string; everything that can fail in use is a value.
*/
#ifndef LBOX_BINDING_H
#define LBOX_BINDING_H

#include "compat.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/engine.h"
#include "core/sse.h"
#include "core/websocket.h"

/* The engine behind the userdata at `index`, borrowed from it; raises for anything else, for a
   closed engine and in a forked child. */
struct lbox_engine *lbox_lua_engine(lua_State *L, int index);

/* Makes a metatable `name` with methods (also its __index) and metamethods. Leaves the stack as is.
 */
void lbox__new_type(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

/* Pushes a zeroed userdata of that type and returns its memory. */
void *lbox__new_object(lua_State *L, const char *type, size_t size);

/* The object a method of that type was called on; raises for anything else. Only for methods that
   lbox__new_type made: it looks at their first upvalue, which is quicker than the registry. */
void *lbox__self(lua_State *L, const char *type);

/* The time at `index` in milliseconds times `unit`, rounded up; -1 for nil, anything negative, and
   what is too far away to be told from never. */
int64_t lbox__opt_time(lua_State *L, int index, int64_t unit);

/* Raises "lbox.core: <text>" for an error of the core. */
int lbox__raise(lua_State *L, const struct lbox_err *err);

/* --- reading a stream (reader.c), shared by requests and parsers ------------------------------ */

enum lbox__mode { LBOX__BUFFER, LBOX__RAW, LBOX__SSE, LBOX__EXEC, LBOX__WEBSOCKET };

/* Zero it, set the mode. */
struct lbox__reader {
  enum lbox__mode mode;
  bool texts; /* of SSE: `text` and `thinking` are wanted without the JSON around their text */
  struct lbox_sse sse;
  struct lbox_ws *ws;        /* owned; of WEBSOCKET only, which its user sets */
  struct lbox__copy *copies; /* owned */
};

/* Sets the method `next` of that type to fn, with what lbox__read needs among its upvalues. */
void lbox__set_next(lua_State *L, const char *type, lua_CFunction fn);

/* Takes the next piece off the buffer and pushes its name and bytes, or nil when more is needed;
   with `texts`, and data that is nothing but a text, "text", nil and that text.
   Returns how many values were pushed. `eof`: the stream ended, and as it should. */
int lbox__read(lua_State *L, struct lbox__reader *reader, struct lbox_buf *b, bool eof);

void lbox__reader_free(struct lbox__reader *reader);

/* --- one opener per file, and the functions that make the objects ----------------------------- */

void lbox__open_engine(lua_State *L);
void lbox__open_watch(lua_State *L);
void lbox__open_request(lua_State *L);
void lbox__open_parser(lua_State *L);
void lbox__open_local_file(lua_State *L);

int lbox__l_engine_new(lua_State *L);
int lbox__l_engine_request(lua_State *L); /* engine:request(options) */
int lbox__l_engine_watch(lua_State *L);   /* engine:watch(fd) */
int lbox__l_sse_parser(lua_State *L);
int lbox__l_exec_parser(lua_State *L);
int lbox__l_websocket_peer(lua_State *L);
int lbox__l_websocket_accept(lua_State *L);
int lbox__l_file_size(lua_State *L);
int lbox__l_is_directory(lua_State *L);
int lbox__l_directory(lua_State *L);

#endif
