/* The stream parsers by themselves, for bytes that come from elsewhere than a request. */
#include <string.h>

#include "binding.h"

#define PARSER_TYPE "lbox.parser"

enum { MAX_UNREAD = 64 * 1024 * 1024, MAX_MESSAGE = 1024 * 1024 };

struct parser {
  struct lbox_buf buf; /* owned */
  bool finished;
  struct lbox__reader reader;
};

static int new_parser(lua_State *L, enum lbox__mode mode)
{
  lua_Integer max = luaL_optinteger(L, 1, MAX_UNREAD);
  luaL_argcheck(L, max > 0 && max <= MAX_UNREAD, 1, "1 to 67108864 bytes");
  struct parser *p = lbox__new_object(L, PARSER_TYPE, sizeof *p);
  lbox_buf_init(&p->buf, (size_t)max);
  p->reader.mode = mode;
  return 1;
}

/* core.sse_parser([max]) -> a parser that holds at most `max` unread bytes (64 MiB) */
int lbox__l_sse_parser(lua_State *L)
{
  return new_parser(L, LBOX__SSE);
}

/* core.exec_parser([max]) */
int lbox__l_exec_parser(lua_State *L)
{
  return new_parser(L, LBOX__EXEC);
}

/* core.websocket_peer() -> the server of a WebSocket: a parser that also frames what is sent */
int lbox__l_websocket_peer(lua_State *L)
{
  lua_settop(L, 0);
  new_parser(L, LBOX__WEBSOCKET);
  struct parser *p = lua_touserdata(L, 1);
  p->reader.ws = lbox_ws_new(true, MAX_MESSAGE, MAX_UNREAD);
  return p->reader.ws ? 1 : luaL_error(L, "not enough memory");
}

/* core.websocket_accept(key) -> what a server answers to the key of a handshake */
int lbox__l_websocket_accept(lua_State *L)
{
  char accept[LBOX_WS_ACCEPT_SIZE];
  lbox_ws_accept(accept, luaL_checkstring(L, 1));
  lua_pushstring(L, accept);
  return 1;
}

static struct lbox_ws *check_ws(lua_State *L)
{
  struct parser *p = lbox__self(L, PARSER_TYPE);
  luaL_argcheck(L, p->reader.ws, 1, "the parser is of no WebSocket");
  return p->reader.ws;
}

/* parser:send(text) -> whether it took it: not after a close, and when too much waits */
static int l_send(lua_State *L)
{
  struct lbox_ws *ws = check_ws(L);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  lua_pushboolean(L, lbox_ws_send(ws, text, len));
  return 1;
}

/* parser:ping(): asks the peer to answer */
static int l_ping(lua_State *L)
{
  lbox_ws_ping(check_ws(L));
  return 0;
}

/* parser:hang_up(): says that nothing more is sent */
static int l_hang_up(lua_State *L)
{
  lbox_ws_close(check_ws(L));
  return 0;
}

/* parser:output() -> what is to be written to the peer and was not given out yet, "" when nothing.
   Copied before a string is made of it, for the reason in reader.c. */
static int l_output(lua_State *L)
{
  struct lbox_buf *out = lbox_ws_output(check_ws(L));
  size_t len = lbox_buf_len(out);
  char *copy = lbox_newuserdata(L, len + 1);
  if (len > 0)
    memcpy(copy, lbox_buf_data(out), len);
  lbox_buf_consume(out, len);
  lua_pushlstring(L, copy, len);
  return 1;
}

/* parser:feed(bytes) -> true, or false when more than the parser's maximum would lie unread */
static int l_feed(lua_State *L)
{
  struct parser *p = lbox__self(L, PARSER_TYPE);
  size_t n;
  const char *bytes = luaL_checklstring(L, 2, &n);
  if (p->finished)
    return luaL_error(L, "lbox.core: the parser is finished");
  lua_pushboolean(L, lbox_buf_append(&p->buf, bytes, n));
  return 1;
}

/* parser:finish(): no more bytes will come */
static int l_finish(lua_State *L)
{
  struct parser *p = lbox__self(L, PARSER_TYPE);
  p->finished = true;
  return 0;
}

/* parser:next() -> name, bytes; or nil when it needs more */
static int l_next(lua_State *L)
{
  struct parser *p = lbox__self(L, PARSER_TYPE);
  return lbox__read(L, &p->reader, &p->buf, p->finished);
}

static int l_gc(lua_State *L)
{
  struct parser *p = luaL_checkudata(L, 1, PARSER_TYPE);
  lbox_buf_free(&p->buf);
  lbox__reader_free(&p->reader);
  return 0;
}

void lbox__open_parser(lua_State *L)
{
  static const luaL_Reg methods[] = {{"feed", l_feed}, {"finish", l_finish},   {"send", l_send},
                                     {"ping", l_ping}, {"hang_up", l_hang_up}, {"output", l_output},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {NULL, NULL}};
  lbox__new_type(L, PARSER_TYPE, methods, meta);
  lbox__set_next(L, PARSER_TYPE, l_next);
}
