/* Reading a stream: from what is buffered to the two values that `next` gives. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"
#include "core/exec_stream.h"

/* Names that come often. They are upvalues of `next` from the second on, in this order. */
static const struct {
  const char *text;
  size_t len;
} names[] = {{"text", 4},   {"thinking", 8}, {"tool", 4},     {"tool_result", 11},
             {"output", 6}, {"data", 4},     {"stats", 5},    {"done", 4},
             {"exit", 4},   {"error", 5},    {"run_start", 9}};
enum { NAMES = sizeof names / sizeof *names, FIRST_NAME = 2, MAX_NAME = 128, ON_STACK = 2048 };

/* A copy that is too large for the C stack. In the reader's list as long as it is in use, so that
   an error on the way does not lose it. */
struct lbox__copy {
  struct lbox__copy *next;
  char bytes[];
};

void lbox__set_next(lua_State *L, const char *type, lua_CFunction fn)
{
  luaL_getmetatable(L, type);
  lua_getfield(L, -1, "__index");
  lua_pushvalue(L, -2); /* [meta, methods, meta] */
  for (int i = 0; i < NAMES; i++)
    lua_pushlstring(L, names[i].text, names[i].len);
  lua_pushcclosure(L, fn, 1 + NAMES);
  lua_setfield(L, -2, "next");
  lua_pop(L, 2);
}

static void push_name(lua_State *L, const char *name, size_t len)
{
  for (int i = 0; i < NAMES; i++) {
    if (names[i].len == len && memcmp(names[i].text, name, len) == 0) {
      lua_pushvalue(L, lua_upvalueindex(FIRST_NAME + i));
      return;
    }
  }
  lua_pushlstring(L, name, len);
}

static void push_large(lua_State *L, struct lbox__reader *reader, const char *bytes, size_t len)
{
  struct lbox__copy *copy = malloc(sizeof *copy + len);
  if (!copy) {
    luaL_error(L, "not enough memory");
    return; /* for readers and tools: luaL_error does not return */
  }
  memcpy(copy->bytes, bytes, len);
  copy->next = reader->copies;
  reader->copies = copy;
  lua_pushlstring(L, copy->bytes, len);
  struct lbox__copy **at = &reader->copies;
  while (*at != copy)
    at = &(*at)->next;
  *at = copy->next;
  free(copy);
}

/* Making a string may first run the collector, and so finalizers, which may do anything: turn the
   loop, which appends to the buffer, or read on. So what lies in the buffer is copied before. */
static int push(lua_State *L, struct lbox__reader *reader, const char *name, size_t name_len,
                const char *bytes, size_t len)
{
  char name_copy[MAX_NAME], copy[ON_STACK]; /* no server has longer names: what is longer is cut */
  if (name_len > sizeof name_copy)
    name_len = sizeof name_copy;
  memcpy(name_copy, name, name_len);
  if (len <= sizeof copy) {
    memcpy(copy, bytes, len);
    push_name(L, name_copy, name_len);
    lua_pushlstring(L, copy, len);
  } else {
    push_large(L, reader, bytes, len);
    push_name(L, name_copy, name_len);
    lua_insert(L, -2);
  }
  return 2;
}

static int push_event(lua_State *L, struct lbox__reader *reader, struct lbox_sse_event *event)
{
  size_t len;
  const char *text = reader->texts ? lbox_sse_text(event, &len) : NULL;
  if (!text)
    return push(L, reader, event->name, event->name_len, event->data, event->data_len);
  push(L, reader, event->name, event->name_len, text, len);
  lua_pushnil(L);
  lua_insert(L, -2); /* [name, nil, text] */
  return 3;
}

int lbox__read(lua_State *L, struct lbox__reader *reader, struct lbox_buf *b, bool eof)
{
  static const char *const kinds[] = {NULL, "output", "exit", "error"};
  static const char *const ws_kinds[] = {NULL, "message", "close", "broken"};
  enum lbox_ws_event ws_event;
  struct lbox_sse_event event;
  const char *bytes;
  size_t len = lbox_buf_len(b);
  enum lbox_exec_kind kind;
  switch (reader->mode) {
  case LBOX__SSE:
    if (lbox_sse_next(&reader->sse, b, eof, &event))
      return push_event(L, reader, &event);
    break;
  case LBOX__EXEC:
    kind = lbox_exec_next(b, eof, &bytes, &len);
    if (kind != LBOX_EXEC_NONE)
      return push(L, reader, kinds[kind], strlen(kinds[kind]), bytes, len);
    break;
  case LBOX__WEBSOCKET:
    bytes = "";
    len = 0;
    ws_event = lbox_ws_next(reader->ws, b, &bytes, &len);
    if (ws_event != LBOX_WS_NONE)
      return push(L, reader, ws_kinds[ws_event], strlen(ws_kinds[ws_event]), bytes, len);
    break;
  case LBOX__RAW:
    bytes = lbox_buf_data(b);
    lbox_buf_consume(b, len);
    if (len > 0)
      return push(L, reader, "data", 4, bytes, len);
    break;
  case LBOX__BUFFER:
    break;
  }
  lua_pushnil(L);
  return 1;
}

void lbox__reader_free(struct lbox__reader *reader)
{
  while (reader->copies) {
    struct lbox__copy *copy = reader->copies;
    reader->copies = copy->next;
    free(copy);
  }
  lbox_ws_free(reader->ws);
  reader->ws = NULL;
}
