/* A request as a Lua object: what was asked, and reading the answer as its mode says. */
#include <string.h>

#include "binding.h"
#include "core/http.h"

#define REQUEST_TYPE     "lbox.request"
#define DEFAULT_MAX_BODY (64.0 * 1024 * 1024)
#define MAX_MAX_BODY     1e15
#define MAX_MESSAGE      (16 * 1024 * 1024) /* of a WebSocket */

/* As enum lbox__mode. */
static const char *const modes[] = {"buffer", "raw", "sse", "exec", "websocket", NULL};

struct request {
  struct lbox_http *http; /* a reference; NULL before it was made */
  struct lbox__reader reader;
};

static struct request *check(lua_State *L)
{
  struct request *r = lbox__self(L, REQUEST_TYPE);
  if (!r->http)
    luaL_error(L, "lbox.core: the request was never made");
  return r;
}

/* The options of a request are read from the table at 2. Strings stay on the stack, so that they
   live as long as the call that borrows them. */
static const char *bytes_option(lua_State *L, const char *name, size_t *len)
{
  lua_getfield(L, 2, name);
  if (lua_isnil(L, -1))
    return NULL;
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "lbox.core: option '%s' must be a string", name);
  return lua_tolstring(L, -1, len);
}

static const char *text_option(lua_State *L, const char *name)
{
  size_t len;
  const char *text = bytes_option(L, name, &len);
  if (text && (strlen(text) != len || strpbrk(text, "\r\n")))
    luaL_error(L, "lbox.core: option '%s' has a line break or NUL in it", name);
  return text;
}

/* The list at options.headers as C strings, in memory of a userdata left on the stack. */
static const char *const *headers_option(lua_State *L)
{
  lua_getfield(L, 2, "headers");
  if (lua_isnil(L, -1))
    return NULL;
  if (!lua_istable(L, -1))
    luaL_error(L, "lbox.core: option 'headers' must be a list of strings");
  int list = lua_gettop(L);
  size_t n = lbox_rawlen(L, list);
  const char **lines = lbox_newuserdata(L, (n + 1) * sizeof *lines);
  luaL_checkstack(L, (int)n + LUA_MINSTACK, "too many headers");
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, list, (int)i + 1);
    size_t len;
    if (lua_type(L, -1) != LUA_TSTRING)
      luaL_error(L, "lbox.core: header %d is not a string", (int)i + 1);
    lines[i] = lua_tolstring(L, -1, &len);
    if (strpbrk(lines[i], "\r\n") || strlen(lines[i]) != len)
      luaL_error(L, "lbox.core: header %d has a line break or NUL in it", (int)i + 1);
  }
  lines[n] = NULL;
  return lines;
}

/* A string in the table at the top. It stays there, so that it lives as long as the table. */
static const char *part_string(lua_State *L, int number, const char *key, size_t *len)
{
  lua_pushstring(L, key);
  lua_rawget(L, -2);
  const char *text = NULL;
  if (lua_type(L, -1) == LUA_TSTRING)
    text = lua_tolstring(L, -1, len);
  else if (!lua_isnil(L, -1))
    luaL_error(L, "lbox.core: '%s' of part %d must be a string", key, number);
  lua_pop(L, 1);
  return text;
}

static const char *part_name(lua_State *L, int number, const char *key)
{
  size_t len;
  const char *name = part_string(L, number, key, &len);
  if (name && strlen(name) != len)
    luaL_error(L, "lbox.core: '%s' of part %d has a NUL in it", key, number);
  return name;
}

static void read_part(lua_State *L, int number, struct lbox_part *part)
{
  if (!lua_istable(L, -1))
    luaL_error(L, "lbox.core: part %d is not a table", number);
  part->name = part_name(L, number, "name");
  part->text = part_string(L, number, "text", &part->text_len);
  part->path = part_name(L, number, "path");
  part->filename = part_name(L, number, "filename");
  part->type = part_name(L, number, "type");
  if (!part->name || !part->text == !part->path)
    luaL_error(L, "lbox.core: part %d needs 'name', and either 'text' or 'path'", number);
  if (part->type && strpbrk(part->type, "\r\n"))
    luaL_error(L, "lbox.core: 'type' of part %d has a line break in it", number);
}

/* The list at options.parts, in memory of a userdata left on the stack, NULL when there is none. */
static const struct lbox_part *parts_option(lua_State *L, size_t *count)
{
  lua_getfield(L, 2, "parts");
  if (lua_isnil(L, -1))
    return NULL;
  if (!lua_istable(L, -1))
    luaL_error(L, "lbox.core: option 'parts' must be a list of tables");
  int list = lua_gettop(L);
  *count = lbox_rawlen(L, list);
  struct lbox_part *parts = lbox_newuserdata(L, (*count + 1) * sizeof *parts);
  memset(parts, 0, (*count + 1) * sizeof *parts);
  for (size_t i = 0; i < *count; i++) {
    lua_rawgeti(L, list, (int)i + 1);
    read_part(L, (int)i + 1, &parts[i]);
    lua_pop(L, 1);
  }
  return parts;
}

static size_t max_body_option(lua_State *L)
{
  lua_getfield(L, 2, "max_body");
  lua_Number max = lua_isnil(L, -1) ? DEFAULT_MAX_BODY : lua_tonumber(L, -1);
  if (!(max > 0 && max <= MAX_MAX_BODY))
    luaL_error(L, "lbox.core: option 'max_body' must be a number of bytes");
  return (size_t)max;
}

static enum lbox__mode mode_option(lua_State *L)
{
  const char *name = text_option(L, "mode");
  if (!name)
    return LBOX__BUFFER;
  for (int i = 0; modes[i]; i++) {
    if (strcmp(name, modes[i]) == 0)
      return (enum lbox__mode)i;
  }
  return (enum lbox__mode)luaL_error(L, "lbox.core: no mode '%s'", name);
}

int lbox__l_engine_request(lua_State *L)
{
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct lbox_http_options o = {0};
  struct lbox_err err;
  o.method = text_option(L, "method");
  o.url = text_option(L, "url");
  if (!o.method || !o.url)
    return luaL_error(L, "lbox.core: a request needs 'method' and 'url'");
  o.body = bytes_option(L, "body", &o.body_len);
  o.parts = parts_option(L, &o.n_parts);
  if (o.body && o.parts)
    return luaL_error(L, "lbox.core: a request has 'body' or 'parts', not both");
  o.unix_socket = text_option(L, "unix_socket");
  o.proxy = text_option(L, "proxy");
  o.no_proxy = text_option(L, "no_proxy");
  o.ca_file = text_option(L, "ca_file");
  o.headers = headers_option(L);
  o.max_body = max_body_option(L);
  enum lbox__mode mode = mode_option(L);
  lua_getfield(L, 2, "http1");
  o.http1 = lua_toboolean(L, -1);
  o.stream = mode != LBOX__BUFFER;
  o.upgrade = mode == LBOX__WEBSOCKET;
  lua_getfield(L, 2, "texts");
  bool texts = lua_toboolean(L, -1);

  struct request *r = lbox__new_object(L, REQUEST_TYPE, sizeof *r);
  r->reader.mode = mode;
  r->reader.texts = texts;
  if (mode == LBOX__WEBSOCKET) {
    r->reader.ws = lbox_ws_new(false, MAX_MESSAGE, LBOX_HTTP_MAX_UNSENT);
    if (!r->reader.ws)
      return luaL_error(L, "not enough memory");
  }
  r->http = lbox_http_start(e, &o, &err);
  return r->http ? 1 : lbox__raise(L, &err);
}

static int l_id(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)lbox_http_id(check(L)->http));
  return 1;
}

/* request:status() -> HTTP status once the headers are complete, else nil */
static int l_status(lua_State *L)
{
  int status = lbox_http_status(check(L)->http);
  if (status)
    lua_pushinteger(L, status);
  else
    lua_pushnil(L);
  return 1;
}

/* request:header(name) -> value of the last header of that name, or nil. They are complete, and so
   stay where they are, once there is a status. */
static int l_header(lua_State *L)
{
  const struct lbox_http *http = check(L)->http;
  const char *name = luaL_checkstring(L, 2);
  lua_pushstring(L, lbox_http_status(http) ? lbox_http_header(http, name) : NULL);
  return 1;
}

/* Hands over what a WebSocket has to send. What does not fit waits for the next time. */
static void flush_websocket(struct request *r)
{
  struct lbox_buf *out = r->reader.ws ? lbox_ws_output(r->reader.ws) : NULL;
  size_t len = out ? lbox_buf_len(out) : 0;
  if (len > 0 && lbox_http_write(r->http, lbox_buf_data(out), len))
    lbox_buf_consume(out, len);
}

/* request:next() -> name, bytes; or nil when nothing is here now. With the option `texts` a text or
   thinking event whose data is {"text":"..."} gives its name, nil and the text. A
   stream that was cut is not ended: what lies there unfinished is neither an event nor an exit. */
static int l_next(lua_State *L)
{
  struct request *r = check(L);
  struct lbox_http *http = r->http;
  if (!lbox_http_streaming(http)) {
    lua_pushnil(L);
    return 1;
  }
  bool ended = lbox_http_done(http) && lbox_http_failure(http) == LBOX_HTTP_OK;
  int n = lbox__read(L, &r->reader, lbox_http_body(http), ended);
  lbox_http_consumed(http, n == 1);
  flush_websocket(r);
  return n;
}

/* request:send(text) -> whether the WebSocket took it: not when too much is unsent, after a close,
   and when the connection is over */
static int l_send(lua_State *L)
{
  struct request *r = check(L);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  luaL_argcheck(L, r->reader.ws, 1, "the request is no WebSocket");
  lua_pushboolean(L, !lbox_http_done(r->http) && lbox_ws_send(r->reader.ws, text, len));
  flush_websocket(r);
  return 1;
}

/* request:hang_up(): says that nothing more is sent */
static int l_hang_up(lua_State *L)
{
  struct request *r = check(L);
  luaL_argcheck(L, r->reader.ws, 1, "the request is no WebSocket");
  lbox_ws_close(r->reader.ws);
  flush_websocket(r);
  return 0;
}

/* request:unsent() -> how many bytes of a WebSocket are not sent yet */
static int l_unsent(lua_State *L)
{
  struct request *r = check(L);
  luaL_argcheck(L, r->reader.ws, 1, "the request is no WebSocket");
  flush_websocket(r);
  size_t len = lbox_http_unsent(r->http) + lbox_buf_len(lbox_ws_output(r->reader.ws));
  lua_pushinteger(L, (lua_Integer)len);
  return 1;
}

/* request:body() -> what was collected of a body that is not streamed; "" while more may come */
static int l_body(lua_State *L)
{
  struct lbox_http *http = check(L)->http;
  struct lbox_buf *body = lbox_http_body(http);
  if (lbox_http_done(http) && lbox_buf_len(body))
    lua_pushlstring(L, lbox_buf_data(body), lbox_buf_len(body));
  else
    lua_pushliteral(L, "");
  return 1;
}

static int l_done(lua_State *L)
{
  lua_pushboolean(L, lbox_http_done(check(L)->http));
  return 1;
}

/* request:failure() -> nil, or kind, message, sent, curl code */
static int l_failure(lua_State *L)
{
  const struct lbox_http *http = check(L)->http;
  enum lbox_http_failure failure = lbox_http_failure(http);
  if (failure == LBOX_HTTP_OK) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushstring(L, lbox_http_failure_name(failure));
  lua_pushstring(L, lbox_http_failure_text(http));
  lua_pushboolean(L, lbox_http_was_sent(http));
  lua_pushinteger(L, lbox_http_curl_code(http));
  return 4;
}

/* request:sent() -> whether any byte of it may have left this machine */
static int l_sent(lua_State *L)
{
  lua_pushboolean(L, lbox_http_was_sent(check(L)->http));
  return 1;
}

/* request:sent_bytes() -> how much of its body was given to the network, and how much it has */
static int l_sent_bytes(lua_State *L)
{
  const struct lbox_http *http = check(L)->http;
  lua_pushinteger(L, (lua_Integer)lbox_http_body_sent(http));
  lua_pushinteger(L, (lua_Integer)lbox_http_body_size(http));
  return 2;
}

static int l_cancel(lua_State *L)
{
  lbox_http_cancel(check(L)->http);
  return 0;
}

static int l_gc(lua_State *L)
{
  struct request *r = luaL_checkudata(L, 1, REQUEST_TYPE);
  if (r->http)
    lbox_http_cancel(r->http);
  lbox_http_unref(r->http);
  r->http = NULL;
  lbox__reader_free(&r->reader);
  return 0;
}

void lbox__open_request(lua_State *L)
{
  static const luaL_Reg methods[] = {
      {"id", l_id},     {"status", l_status},   {"header", l_header}, {"body", l_body},
      {"done", l_done}, {"failure", l_failure}, {"sent", l_sent},     {"sent_bytes", l_sent_bytes},
      {"send", l_send}, {"unsent", l_unsent},   {"cancel", l_cancel}, {"hang_up", l_hang_up},
      {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {NULL, NULL}};
  lbox__new_type(L, REQUEST_TYPE, methods, meta);
  lbox__set_next(L, REQUEST_TYPE, l_next);
}
