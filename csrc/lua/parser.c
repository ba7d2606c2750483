/* The stream parsers by themselves, for bytes that come from elsewhere than a request. */
#include "binding.h"
#include "core/buf.h"
#include "core/exec_stream.h"
#include "core/sse.h"

#define PARSER_TYPE "lbox.parser"

enum { MAX_UNREAD = 64 * 1024 * 1024 };

struct parser {
  struct lbox_buf buf; /* owned */
  bool is_exec, finished;
  struct lbox_sse sse;
};

static int new_parser(lua_State *L, bool is_exec)
{
  struct parser *p = lbox__new_object(L, PARSER_TYPE, sizeof *p);
  lbox_buf_init(&p->buf, MAX_UNREAD);
  p->is_exec = is_exec;
  return 1;
}

int lbox__l_sse_parser(lua_State *L)
{
  return new_parser(L, false);
}

int lbox__l_exec_parser(lua_State *L)
{
  return new_parser(L, true);
}

/* parser:feed(bytes) -> true, or false when more than 64 MiB lie unread */
static int l_feed(lua_State *L)
{
  struct parser *p = luaL_checkudata(L, 1, PARSER_TYPE);
  size_t n;
  const char *bytes = luaL_checklstring(L, 2, &n);
  luaL_argcheck(L, !p->finished, 1, "the parser is finished");
  lua_pushboolean(L, lbox_buf_append(&p->buf, bytes, n));
  return 1;
}

/* parser:finish(): no more bytes will come */
static int l_finish(lua_State *L)
{
  struct parser *p = luaL_checkudata(L, 1, PARSER_TYPE);
  p->finished = true;
  return 0;
}

/* parser:next() -> name, data; or nil when it needs more */
static int l_next(lua_State *L)
{
  static const char *const kinds[] = {NULL, "output", "exit", "error"};
  struct parser *p = luaL_checkudata(L, 1, PARSER_TYPE);
  if (p->is_exec) {
    const char *bytes;
    size_t len;
    enum lbox_exec_kind kind = lbox_exec_next(&p->buf, p->finished, &bytes, &len);
    if (kind != LBOX_EXEC_NONE) {
      lua_pushstring(L, kinds[kind]);
      lua_pushlstring(L, bytes, len);
      return 2;
    }
  } else {
    struct lbox_sse_event event;
    if (lbox_sse_next(&p->sse, &p->buf, p->finished, &event)) {
      lua_pushlstring(L, event.name, event.name_len);
      lua_pushlstring(L, event.data, event.data_len);
      return 2;
    }
  }
  lua_pushnil(L);
  return 1;
}

static int l_gc(lua_State *L)
{
  struct parser *p = luaL_checkudata(L, 1, PARSER_TYPE);
  lbox_buf_free(&p->buf);
  return 0;
}

void lbox__open_parser(lua_State *L)
{
  static const luaL_Reg methods[] = {
      {"feed", l_feed}, {"finish", l_finish}, {"next", l_next}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {NULL, NULL}};
  lbox__new_type(L, PARSER_TYPE, methods, meta);
}
