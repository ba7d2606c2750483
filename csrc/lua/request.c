/* A request as a Lua object: what was asked, and reading the answer through the parser its mode names. */
#include <string.h>

#include "binding.h"
#include "core/exec_stream.h"
#include "core/http.h"
#include "core/sse.h"

#define REQUEST_TYPE "lbox.request"
#define DEFAULT_MAX_BODY (64.0 * 1024 * 1024)

enum mode { BUFFER, RAW, SSE, EXEC };
static const char *const mode_names[] = {"buffer", "raw", "sse", "exec", NULL};

struct request {
  struct lbox_http *http; /* a reference; NULL before it was made */
  enum mode mode;
  struct lbox_sse sse;
};

static struct request *check(lua_State *L)
{
  struct request *r = luaL_checkudata(L, 1, REQUEST_TYPE);
  if (!r->http)
    luaL_error(L, "lbox.core: the request was never made");
  return r;
}

/* The string at options[name], or NULL. It stays on the stack so that it lives through the call. */
static const char *option(lua_State *L, const char *name, size_t *len)
{
  lua_getfield(L, 2, name);
  if (lua_isnil(L, -1))
    return NULL;
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "lbox.core: option '%s' must be a string", name);
  return lua_tolstring(L, -1, len);
}

/* The list at options.headers as C strings, in memory of a userdata left on the stack. */
static const char *const *header_list(lua_State *L)
{
  lua_getfield(L, 2, "headers");
  if (lua_isnil(L, -1))
    return NULL;
  luaL_checktype(L, -1, LUA_TTABLE);
  int list = lua_gettop(L);
  size_t n = lbox_rawlen(L, list);
  const char **lines = lbox_newuserdata(L, (n + 1) * sizeof *lines);
  luaL_checkstack(L, (int)n + 8, "too many headers");
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

static enum mode check_mode(lua_State *L)
{
  lua_getfield(L, 2, "mode");
  const char *name = luaL_optstring(L, -1, "buffer");
  for (int i = 0; mode_names[i]; i++) {
    if (strcmp(name, mode_names[i]) == 0)
      return (enum mode)i;
  }
  return (enum mode)luaL_error(L, "lbox.core: no mode '%s'", name);
}

int lbox__l_engine_request(lua_State *L)
{
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct lbox_http_options o = {0};
  struct lbox_err err;
  o.method = option(L, "method", NULL);
  o.url = option(L, "url", NULL);
  if (!o.method || !o.url)
    return luaL_error(L, "lbox.core: a request needs 'method' and 'url'");
  o.body = option(L, "body", &o.body_len);
  o.unix_socket = option(L, "unix_socket", NULL);
  o.proxy = option(L, "proxy", NULL);
  o.no_proxy = option(L, "no_proxy", NULL);
  o.ca_file = option(L, "ca_file", NULL);
  o.headers = header_list(L);
  lua_getfield(L, 2, "max_body");
  lua_Number max = luaL_optnumber(L, -1, DEFAULT_MAX_BODY);
  o.max_body = max < 0 || max > 1e15 ? (size_t)DEFAULT_MAX_BODY : (size_t)max;
  enum mode mode = check_mode(L);
  lua_getfield(L, 2, "http1");
  o.stream = mode != BUFFER || lua_toboolean(L, -1);

  struct request *r = lbox__new_object(L, REQUEST_TYPE, sizeof *r);
  r->mode = mode;
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

/* request:header(name) -> value of the last header of that name, or nil */
static int l_header(lua_State *L)
{
  lua_pushstring(L, lbox_http_header(check(L)->http, luaL_checkstring(L, 2)));
  return 1;
}

static int push_pair(lua_State *L, const char *name, size_t name_len, const char *data, size_t len)
{
  lua_pushlstring(L, name, name_len);
  lua_pushlstring(L, data, len);
  return 2;
}

static bool ended_cleanly(const struct request *r)
{
  return lbox_http_done(r->http) && lbox_http_failure(r->http) == LBOX_HTTP_OK;
}

static int next_sse(lua_State *L, struct request *r, struct lbox_buf *body)
{
  struct lbox_sse_event event;
  /* A stream that was cut ends as it does: what lies there unfinished is not an event. */
  if (!lbox_sse_next(&r->sse, body, ended_cleanly(r), &event))
    return 0;
  return push_pair(L, event.name, event.name_len, event.data, event.data_len);
}

static int next_exec(lua_State *L, const struct request *r, struct lbox_buf *body)
{
  const char *bytes;
  size_t len;
  enum lbox_exec_kind kind = lbox_exec_next(body, ended_cleanly(r), &bytes, &len);
  if (kind == LBOX_EXEC_NONE)
    return 0;
  if (kind == LBOX_EXEC_OUTPUT)
    return push_pair(L, "output", 6, bytes, len);
  return kind == LBOX_EXEC_EXIT ? push_pair(L, "exit", 4, bytes, len)
                                : push_pair(L, "error", 5, bytes, len);
}

static int next_raw(lua_State *L, struct lbox_buf *body)
{
  size_t len = lbox_buf_len(body);
  if (len == 0)
    return 0;
  push_pair(L, "data", 4, lbox_buf_data(body), len);
  lbox_buf_consume(body, len);
  return 2;
}

/* request:next() -> kind, bytes; or nil when nothing is here now */
static int l_next(lua_State *L)
{
  struct request *r = check(L);
  struct lbox_buf *body = lbox_http_body(r->http);
  int n = 0;
  if (lbox_http_streaming(r->http)) {
    if (r->mode == SSE)
      n = next_sse(L, r, body);
    else if (r->mode == EXEC)
      n = next_exec(L, r, body);
    else if (r->mode == RAW)
      n = next_raw(L, body);
    lbox_http_consumed(r->http, n == 0);
  }
  if (n == 0) {
    lua_pushnil(L);
    n = 1;
  }
  return n;
}

/* request:body() -> what was collected of a body that is not streamed */
static int l_body(lua_State *L)
{
  struct lbox_buf *body = lbox_http_body(check(L)->http);
  if (lbox_buf_len(body))
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
  return 0;
}

void lbox__open_request(lua_State *L)
{
  static const luaL_Reg methods[] = {{"id", l_id},
                                     {"status", l_status},
                                     {"header", l_header},
                                     {"next", l_next},
                                     {"body", l_body},
                                     {"done", l_done},
                                     {"failure", l_failure},
                                     {"cancel", l_cancel},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {NULL, NULL}};
  lbox__new_type(L, REQUEST_TYPE, methods, meta);
}
