/*
** lbox.server.httpd: a server hands out requests, a request is answered once.
** lua/lbox/server/listener.lua makes tasks of them.
*/
#include <arpa/inet.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "httpd.h"
#include "lua/binding.h"
#include "modules.h"

#define SERVER_TYPE  "lbox.httpd"
#define REQUEST_TYPE "lbox.httpd.request"

struct server_object {
  struct httpd *server; /* a reference; NULL once collected */
};

struct request_object {
  struct httpd_request *request; /* held; NULL once closed */
};

static struct httpd *check_server(lua_State *L)
{
  const struct server_object *object = lbox__self(L, SERVER_TYPE);
  if (!object->server)
    luaL_error(L, "lbox.server.httpd: the server is closed");
  return object->server;
}

static struct httpd_request *check_request(lua_State *L)
{
  const struct request_object *object = lbox__self(L, REQUEST_TYPE);
  if (!object->request)
    luaL_error(L, "lbox.server.httpd: the request is closed");
  return object->request;
}

/* --- the server ------------------------------------------------------------------------------- */

/* A whole number from the options at index 2. */
static int64_t check_option(lua_State *L, const char *name, int64_t fallback, int64_t max)
{
  lua_getfield(L, 2, name);
  lua_Number value = luaL_optnumber(L, -1, (lua_Number)fallback);
  lua_pop(L, 1);
  if (!(value >= 0 && value <= (lua_Number)max) || floor(value) != value)
    luaL_error(L, "lbox.server.httpd: bad %s", name);
  return (int64_t)value;
}

/* new(engine, { fd = listening socket, key = string, max_body, max_buffered = bytes,
   connection_limit, waiting_limit, idle_timeout, write_timeout = ms }) -> server. Who lacks the key
   is handed out all the same, but without the body. */
static int l_new(lua_State *L)
{
  enum { MAX_MS = 1000000000 };
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct httpd_limits limits;
  int64_t fd = check_option(L, "fd", -1, INT32_MAX);
  int64_t max_body = check_option(L, "max_body", 64 * 1024 * 1024, INT64_C(1) << 40);
  limits.max_body = (size_t)max_body;
  limits.max_buffered =
      (size_t)check_option(L, "max_buffered", 256 * 1024 * 1024, INT64_C(1) << 42);
  limits.connections = (unsigned)check_option(L, "connection_limit", 512, 100000);
  limits.waiting = (unsigned)check_option(L, "waiting_limit", 256, 100000);
  limits.idle_us = 1000 * check_option(L, "idle_timeout", 75000, MAX_MS);
  limits.write_us = 1000 * check_option(L, "write_timeout", 30000, MAX_MS);
  lua_getfield(L, 2, "key");
  limits.key = luaL_optstring(L, -1, NULL);
  struct lbox_err err;
  struct server_object *object = lbox__new_object(L, SERVER_TYPE, sizeof *object);
  object->server = lbox__httpd_new(e, (int)fd, &limits, &err);
  if (!object->server)
    return luaL_error(L, "lbox.server.httpd: %s", err.text);
  return 1;
}

/* server:id() -> the id that comes up when there are requests to accept */
static int l_id(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)check_server(L)->ready.id);
  return 1;
}

/* server:accept() -> the next request, or nil; of a large body only the first part is there. Also
   lets the server work: it is to be called until nil whenever the id comes up. */
static int l_accept(lua_State *L)
{
  struct httpd *h = check_server(L);
  if (h->dirty)
    lbox__httpd_run(h);
  if (!h->waiting) {
    lua_pushnil(L);
    return 1;
  }
  struct request_object *object = lbox__new_object(L, REQUEST_TYPE, sizeof *object);
  object->request = lbox__httpd_accept(h);
  return 1;
}

/* server:connections() -> open connections, requests whose answer is not wholly sent */
static int l_connections(lua_State *L)
{
  const struct httpd *h = check_server(L);
  lua_pushinteger(L, h->connections);
  lua_pushinteger(L, h->open_requests);
  return 2;
}

/* server:quiesce(): takes no more connections */
static int l_quiesce(lua_State *L)
{
  lbox__httpd_quiesce(check_server(L));
  return 0;
}

/* server:stop(): ends every connection */
static int l_stop(lua_State *L)
{
  lbox__httpd_stop(check_server(L));
  return 0;
}

static int l_server_gc(lua_State *L)
{
  struct server_object *object = luaL_checkudata(L, 1, SERVER_TYPE);
  struct httpd *h = object->server;
  object->server = NULL;
  if (h) {
    lbox__httpd_stop(h);
    lbox__httpd_unref(h);
  }
  return 0;
}

/* --- requests --------------------------------------------------------------------------------- */

/* request:id() -> the id that comes up when there is more of the body, or room to write, or the
   client is gone */
static int l_request_id(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)check_request(L)->ready.id);
  return 1;
}

static int l_method(lua_State *L)
{
  const struct httpd_request *r = check_request(L);
  lua_pushstring(L, r->head.base + r->head.start + r->method_at);
  return 1;
}

static const char *target(const struct httpd_request *r, size_t *path_len)
{
  const char *text = r->head.base + r->head.start;
  *path_len = strcspn(text, "?");
  return text;
}

/* request:path() -> the request target up to its '?', as it was sent */
static int l_path(lua_State *L)
{
  size_t n;
  const char *text = target(check_request(L), &n);
  lua_pushlstring(L, text, n);
  return 1;
}

/* request:query() -> what follows the '?', as it was sent; "" for nothing */
static int l_query(lua_State *L)
{
  size_t n;
  const char *text = target(check_request(L), &n);
  lua_pushstring(L, text[n] ? text + n + 1 : "");
  return 1;
}

/* request:header(name) -> its (first) value, or nil */
static int l_header(lua_State *L)
{
  lua_pushstring(L, lbox__request_header(check_request(L), luaL_checkstring(L, 2)));
  return 1;
}

/* request:read() -> what is there of the body and was not read yet, "" when more is to come
     | nil at its end | false, status when it cannot be had: 413 or 503, 0 when the client is gone
 */
static int l_read(lua_State *L)
{
  struct httpd_request *r = check_request(L);
  size_t n = lbox_buf_len(&r->body);
  if (n > 0 || !(r->whole || r->refusal || !r->mhd)) {
    lua_pushlstring(L, n ? lbox_buf_data(&r->body) : "", n);
    lbox_buf_consume(&r->body, n);
    lbox__request_took(r);
    return 1;
  }
  if (r->whole && !r->refusal) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushboolean(L, false);
  lua_pushinteger(L, (lua_Integer)r->refusal);
  return 2;
}

/* request:peer() -> "unix", uid | "tcp", "address:port" | nil when it is not known */
static int l_peer(lua_State *L)
{
  const struct httpd_address *a = &check_request(L)->address;
  char text[INET6_ADDRSTRLEN];
  switch (a->family) {
  case AF_UNIX:
    lua_pushliteral(L, "unix");
    lua_pushinteger(L, (lua_Integer)a->uid);
    return 2;
  case AF_INET:
    lua_pushliteral(L, "tcp");
    inet_ntop(AF_INET, &a->net.in.sin_addr, text, sizeof text);
    lua_pushfstring(L, "%s:%d", text, (int)ntohs(a->net.in.sin_port));
    return 2;
  case AF_INET6:
    lua_pushliteral(L, "tcp");
    inet_ntop(AF_INET6, &a->net.in6.sin6_addr, text, sizeof text);
    lua_pushfstring(L, "[%s]:%d", text, (int)ntohs(a->net.in6.sin6_port));
    return 2;
  default:
    lua_pushnil(L);
    return 1;
  }
}

static unsigned check_status(lua_State *L)
{
  lua_Integer status = luaL_checkinteger(L, 2);
  luaL_argcheck(L, status >= 200 && status <= 599, 2, "not an HTTP status");
  return (unsigned)status;
}

/* Adds the headers of the table at index 3. False, with the culprit's name pushed: one is no
 * header. */
static bool add_headers(lua_State *L, struct MHD_Response *response)
{
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
    /* Converting a number in place would confuse lua_next. */
    bool good =
        lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING &&
        strlen(lua_tostring(L, -1)) == lua_rawlen(L, -1) &&
        MHD_add_response_header(response, lua_tostring(L, -2), lua_tostring(L, -1)) == MHD_YES;
    if (!good) {
      lua_pushvalue(L, -2);
      return false;
    }
  }
  return true;
}

static int answer(lua_State *L, struct httpd_request *r, const char *bytes, size_t n)
{
  unsigned status = check_status(L);
  luaL_checktype(L, 3, LUA_TTABLE);
  if (r->answered)
    return luaL_error(L, "lbox.server.httpd: the request is already answered");
  struct MHD_Response *response = lbox__request_response(r, bytes, n);
  if (!response)
    return luaL_error(L, "lbox.server.httpd: not enough memory");
  if (!add_headers(L, response)) {
    MHD_destroy_response(response);
    lbox__request_unanswer(r);
    return luaL_error(L, "lbox.server.httpd: bad header %s", luaL_tolstring(L, -1, NULL));
  }
  lbox__request_answer(r, status, response);
  return 0;
}

/* request:respond(status, headers, body): the whole answer */
static int l_respond(lua_State *L)
{
  size_t n;
  const char *body = luaL_checklstring(L, 4, &n);
  return answer(L, check_request(L), body, n);
}

/* request:upgrade(headers): answers 101, after which the connection is no longer HTTP. The id comes
   up when `socket` has something. */
static int l_upgrade(lua_State *L)
{
  struct httpd_request *r = check_request(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_pushinteger(L, MHD_HTTP_SWITCHING_PROTOCOLS);
  lua_insert(L, 2);
  if (r->answered)
    return luaL_error(L, "lbox.server.httpd: the request is already answered");
  struct MHD_Response *response = lbox__request_upgrade_response(r);
  if (!response)
    return luaL_error(L, "lbox.server.httpd: not enough memory");
  if (!add_headers(L, response)) {
    MHD_destroy_response(response);
    return luaL_error(L, "lbox.server.httpd: bad header %s", luaL_tolstring(L, -1, NULL));
  }
  lbox__request_answer(r, MHD_HTTP_SWITCHING_PROTOCOLS, response);
  return 0;
}

/* request:socket() -> of an upgraded connection, which lives until the request is closed: a
   descriptor, the caller's, and what the client has sent already; nil when it is not upgraded yet,
   false when the client is gone */
static int l_socket(lua_State *L)
{
  struct httpd_request *r = check_request(L);
  if (!r->upgrade) {
    if (r->mhd && !r->gone)
      lua_pushnil(L);
    else
      lua_pushboolean(L, false);
    return 1;
  }
  int fd = fcntl(r->upgraded_fd, F_DUPFD_CLOEXEC, 3);
  if (fd < 0)
    return luaL_error(L, "lbox.server.httpd: no descriptors left");
  size_t n = lbox_buf_len(&r->body);
  lua_pushinteger(L, fd);
  lua_pushlstring(L, n ? lbox_buf_data(&r->body) : "", n);
  lbox__request_free_body(r);
  return 2;
}

/* request:begin(status, headers): an answer that is written piece by piece */
static int l_begin(lua_State *L)
{
  return answer(L, check_request(L), NULL, 0);
}

static struct httpd_request *check_stream(lua_State *L)
{
  struct httpd_request *r = check_request(L);
  if (!r->streamed || r->finished || r->aborted)
    luaL_error(L, "lbox.server.httpd: there is no open stream");
  return r;
}

/* request:write(bytes) -> number of bytes not sent yet */
static int l_write(lua_State *L)
{
  struct httpd_request *r = check_stream(L);
  size_t n;
  const char *bytes = luaL_checklstring(L, 2, &n);
  if (!lbox__request_write(r, bytes, n))
    return luaL_error(L, "lbox.server.httpd: too much unsent");
  lua_pushinteger(L, (lua_Integer)lbox_buf_len(&r->out));
  return 1;
}

/* request:unsent() -> number of bytes not sent yet */
static int l_unsent(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)lbox_buf_len(&check_request(L)->out));
  return 1;
}

/* request:finish(): the stream is complete */
static int l_finish(lua_State *L)
{
  lbox__request_end(check_stream(L), true);
  return 0;
}

/* request:abort(): cuts the connection, so that the client sees that something is missing */
static int l_abort(lua_State *L)
{
  lbox__request_end(check_request(L), false);
  return 0;
}

/* request:gone() -> whether the client hung up before the end of the answer */
static int l_gone(lua_State *L)
{
  lua_pushboolean(L, check_request(L)->gone);
  return 1;
}

/* request:close(): lets go of it; without an answer so far the client gets a 500 */
static int l_request_close(lua_State *L)
{
  struct request_object *object = luaL_checkudata(L, 1, REQUEST_TYPE);
  struct httpd_request *r = object->request;
  object->request = NULL;
  if (r)
    lbox__request_drop(r);
  return 0;
}

int luaopen_lbox_server_httpd(lua_State *L)
{
  static const luaL_Reg server_methods[] = {
      {"id", l_id},           {"accept", l_accept}, {"connections", l_connections},
      {"quiesce", l_quiesce}, {"stop", l_stop},     {NULL, NULL}};
  static const luaL_Reg server_meta[] = {{"__gc", l_server_gc}, {NULL, NULL}};
  static const luaL_Reg request_methods[] = {
      {"id", l_request_id},   {"method", l_method},       {"path", l_path},
      {"query", l_query},     {"header", l_header},       {"read", l_read},
      {"upgrade", l_upgrade}, {"socket", l_socket},       {"peer", l_peer},
      {"respond", l_respond}, {"begin", l_begin},         {"write", l_write},
      {"unsent", l_unsent},   {"finish", l_finish},       {"abort", l_abort},
      {"gone", l_gone},       {"close", l_request_close}, {NULL, NULL}};
  static const luaL_Reg request_meta[] = {{"__gc", l_request_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  lbox__new_type(L, SERVER_TYPE, server_methods, server_meta);
  lbox__new_type(L, REQUEST_TYPE, request_methods, request_meta);
  luaL_newlib(L, functions);
  return 1;
}
