/* lbox.server.httpd as Lua sees it: a server hands out requests, a request is answered once. */
#include <string.h>
#include <sys/socket.h>

#include "httpd.h"
#include "lua/binding.h"
#include "modules.h"

#define SERVER_TYPE "lbox.httpd"
#define CONN_TYPE   "lbox.httpd.request"

struct conn_object {
  struct conn *conn; /* a reference; NULL once dropped */
};

static struct httpd *check_server(lua_State *L)
{
  struct httpd *h = luaL_checkudata(L, 1, SERVER_TYPE);
  if (!h->engine)
    luaL_error(L, "the HTTP server is stopped");
  return h;
}

static struct conn *check_conn(lua_State *L)
{
  const struct conn_object *object = luaL_checkudata(L, 1, CONN_TYPE);
  if (!object->conn)
    luaL_error(L, "the request is closed");
  return object->conn;
}

/* new(engine, { fd = listening socket, max_body = bytes }) */
static int l_new(lua_State *L)
{
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_getfield(L, 2, "fd");
  int fd = (int)luaL_checkinteger(L, -1);
  lua_getfield(L, 2, "max_body");
  lua_Integer max_body = luaL_checkinteger(L, -1);
  luaL_argcheck(L, max_body > 0, 2, "max_body must be positive");
  struct lbox_err err;
  struct httpd *h = lbox__new_object(L, SERVER_TYPE, sizeof *h);
  if (!lbox__httpd_start(h, e, fd, (size_t)max_body, &err)) {
    lbox__httpd_stop(h);
    return luaL_error(L, "%s", err.text);
  }
  return 1;
}

static int l_id(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)check_server(L)->ready.id);
  return 1;
}

/* server:accept() -> the next request whose body is complete, or nil */
static int l_accept(lua_State *L)
{
  struct httpd *h = check_server(L);
  if (!h->waiting) {
    lua_pushnil(L);
    return 1;
  }
  struct conn_object *object = lbox__new_object(L, CONN_TYPE, sizeof *object);
  /* The server's object lives as long as any of its requests. */
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  object->conn = lbox__httpd_accept(h);
  return 1;
}

static int l_connections(lua_State *L)
{
  lua_pushinteger(L, check_server(L)->connections);
  return 1;
}

static int l_stop(lua_State *L)
{
  lbox__httpd_stop(luaL_checkudata(L, 1, SERVER_TYPE));
  return 0;
}

/* --- requests ----------------------------------------------------------------------------------
 */

static int l_conn_id(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)check_conn(L)->ready.id);
  return 1;
}

static int l_method(lua_State *L)
{
  lua_pushstring(L, check_conn(L)->method);
  return 1;
}

/* request:path() -> path and query as they were sent */
static int l_path(lua_State *L)
{
  const char *uri = check_conn(L)->uri;
  size_t n = strcspn(uri, "?");
  lua_pushlstring(L, uri, n);
  lua_pushstring(L, uri[n] ? uri + n + 1 : "");
  return 2;
}

static int l_header(lua_State *L)
{
  const struct conn *c = check_conn(L);
  const char *name = luaL_checkstring(L, 2);
  lua_pushstring(L, c->mhd ? MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name) : NULL);
  return 1;
}

static int l_body(lua_State *L)
{
  struct lbox_buf *body = &check_conn(L)->body;
  if (lbox_buf_len(body))
    lua_pushlstring(L, lbox_buf_data(body), lbox_buf_len(body));
  else
    lua_pushliteral(L, "");
  return 1;
}

/* request:peer() -> "unix", uid | "tcp" | nil when it is gone */
static int l_peer(lua_State *L)
{
  const struct conn *c = check_conn(L);
  const union MHD_ConnectionInfo *info =
      c->mhd ? MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CONNECTION_FD) : NULL;
  struct ucred peer;
  struct sockaddr_storage address;
  socklen_t len = sizeof address, peer_len = sizeof peer;
  if (!info || getsockname(info->connect_fd, (struct sockaddr *)&address, &len) != 0) {
    lua_pushnil(L);
    return 1;
  }
  if (address.ss_family != AF_UNIX) {
    lua_pushliteral(L, "tcp");
    return 1;
  }
  if (getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) != 0) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushliteral(L, "unix");
  lua_pushinteger(L, (lua_Integer)peer.uid);
  return 2;
}

static unsigned check_status(lua_State *L)
{
  lua_Integer status = luaL_checkinteger(L, 2);
  luaL_argcheck(L, status >= 200 && status <= 599, 2, "not an HTTP status");
  return (unsigned)status;
}

static void add_headers(lua_State *L, int index, struct MHD_Response *response)
{
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING)
      MHD_add_response_header(response, lua_tostring(L, -2), lua_tostring(L, -1));
  }
}

/* request:respond(status, headers, body): the whole answer */
static int l_respond(lua_State *L)
{
  struct conn *c = check_conn(L);
  unsigned status = check_status(L);
  size_t len;
  const char *body = luaL_checklstring(L, 4, &len);
  luaL_checktype(L, 3, LUA_TTABLE);
  struct MHD_Response *response =
      MHD_create_response_from_buffer(len, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
  if (!response)
    return luaL_error(L, "not enough memory");
  add_headers(L, 3, response);
  lbox__conn_respond(c, status, response);
  return 0;
}

/* request:begin(status, headers): an answer that is written piece by piece */
static int l_begin(lua_State *L)
{
  struct conn *c = check_conn(L);
  unsigned status = check_status(L);
  luaL_checktype(L, 3, LUA_TTABLE);
  struct MHD_Response *response = lbox__conn_stream(c);
  if (!response)
    return luaL_error(L, "not enough memory");
  c->streamed = true;
  add_headers(L, 3, response);
  lbox__conn_respond(c, status, response);
  return 0;
}

/* request:write(bytes) -> number of bytes not sent yet */
static int l_write(lua_State *L)
{
  struct conn *c = check_conn(L);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  if (!lbox__conn_write(c, bytes, len))
    return luaL_error(L, "not enough memory");
  c->wants_room = lbox_buf_len(&c->out) >= LBOX_HTTPD_LOW_WATER;
  lua_pushinteger(L, (lua_Integer)lbox_buf_len(&c->out));
  return 1;
}

static int l_finish(lua_State *L)
{
  lbox__conn_end(check_conn(L), true);
  return 0;
}

static int l_abort(lua_State *L)
{
  lbox__conn_end(check_conn(L), false);
  return 0;
}

/* request:gone() -> whether the client went away before the end of the answer */
static int l_gone(lua_State *L)
{
  lua_pushboolean(L, check_conn(L)->gone);
  return 1;
}

static int l_unsent(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)lbox_buf_len(&check_conn(L)->out));
  return 1;
}

static int l_conn_close(lua_State *L)
{
  struct conn_object *object = luaL_checkudata(L, 1, CONN_TYPE);
  struct conn *c = object->conn;
  object->conn = NULL;
  if (c)
    lbox__conn_drop(c);
  return 0;
}

int luaopen_lbox_server_httpd(lua_State *L)
{
  static const luaL_Reg server_methods[] = {{"id", l_id},
                                            {"accept", l_accept},
                                            {"connections", l_connections},
                                            {"stop", l_stop},
                                            {NULL, NULL}};
  static const luaL_Reg server_meta[] = {{"__gc", l_stop}, {NULL, NULL}};
  static const luaL_Reg conn_methods[] = {
      {"id", l_conn_id},      {"method", l_method},    {"path", l_path},
      {"header", l_header},   {"body", l_body},        {"peer", l_peer},
      {"respond", l_respond}, {"begin", l_begin},      {"write", l_write},
      {"finish", l_finish},   {"abort", l_abort},      {"gone", l_gone},
      {"unsent", l_unsent},   {"close", l_conn_close}, {NULL, NULL}};
  static const luaL_Reg conn_meta[] = {{"__gc", l_conn_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  lbox__new_type(L, SERVER_TYPE, server_methods, server_meta);
  lbox__new_type(L, CONN_TYPE, conn_methods, conn_meta);
  luaL_newlib(L, functions);
  return 1;
}
