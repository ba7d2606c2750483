/* lbox.core: the module's opener, and the functions that belong to no object. */
#include <curl/curl.h>
#include <math.h>
#include <string.h>

#include "binding.h"
#include "core/util.h"
#include "lbox/lbox.h"

void lbox__new_type(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
  luaL_newmetatable(L, name); /* [meta] */
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_newtable(L);
  for (; methods->name; methods++) {
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, methods->func, 1); /* lbox__self knows its objects by that upvalue */
    lua_setfield(L, -2, methods->name);
  }
  lua_setfield(L, -2, "__index");
  for (; meta->name; meta++) {
    lua_pushcfunction(L, meta->func);
    lua_setfield(L, -2, meta->name);
  }
  lua_pop(L, 1);
}

void *lbox__new_object(lua_State *L, const char *type, size_t size)
{
  void *object = lbox_newuserdata(L, size);
  memset(object, 0, size);
  luaL_getmetatable(L, type);
  lua_setmetatable(L, -2);
  return object;
}

void *lbox__self(lua_State *L, const char *type)
{
  void *object = lua_touserdata(L, 1);
  if (object && lua_getmetatable(L, 1)) {
    int same = lua_rawequal(L, -1, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (same)
      return object;
  }
  return luaL_checkudata(L, 1, type);
}

int64_t lbox__opt_time(lua_State *L, int index, int64_t unit)
{
  lua_Number time = luaL_optnumber(L, index, -1) * (lua_Number)unit;
  return time >= 0 && time < 1e18 ? (int64_t)ceil(time) : -1;
}

int lbox__raise(lua_State *L, const struct lbox_err *err)
{
  return luaL_error(L, "lbox.core: %s", err->text);
}

/* core.now() -> monotonic milliseconds, with a fraction */
static int l_now(lua_State *L)
{
  lua_pushnumber(L, (lua_Number)lbox_now_us() / 1000);
  return 1;
}

/* core.random(n) -> n random bytes */
static int l_random(lua_State *L)
{
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0 && n <= 1 << 20, 1, "0 to 1048576 bytes");
  void *bytes = lbox_newuserdata(L, (size_t)n + 1);
  if (!lbox_random(bytes, (size_t)n))
    return luaL_error(L, "lbox.core: the kernel gave no random bytes");
  lua_pushlstring(L, bytes, (size_t)n);
  return 1;
}

/* core.uuid() -> a random UUID as text */
static int l_uuid(lua_State *L)
{
  char text[37];
  if (!lbox_uuid(text))
    return luaL_error(L, "lbox.core: the kernel gave no random bytes");
  lua_pushstring(L, text);
  return 1;
}

/* core.base64_encode(bytes) -> text */
static int l_base64_encode(lua_State *L)
{
  size_t n;
  const char *bytes = luaL_checklstring(L, 1, &n);
  char *text = lbox_newuserdata(L, lbox_base64_size(n) + 1);
  lua_pushlstring(L, text, lbox_base64_encode(text, bytes, n));
  return 1;
}

/* core.base64_decode(text) -> bytes, or nil when it is not base64 */
static int l_base64_decode(lua_State *L)
{
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  size_t len;
  char *bytes = lbox_newuserdata(L, n + 1);
  if (lbox_base64_decode(bytes, &len, text, n))
    lua_pushlstring(L, bytes, len);
  else
    lua_pushnil(L);
  return 1;
}

/* core.websocket_key() -> a key for a handshake, and what has to be answered to it */
static int l_websocket_key(lua_State *L)
{
  char key[LBOX_WS_KEY_SIZE], accept[LBOX_WS_ACCEPT_SIZE];
  if (!lbox_ws_key(key))
    return luaL_error(L, "lbox.core: the kernel gave no random bytes");
  lbox_ws_accept(accept, key);
  lua_pushstring(L, key);
  lua_pushstring(L, accept);
  return 2;
}

/* core.is_utf8(s) -> boolean */
static int l_is_utf8(lua_State *L)
{
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  lua_pushboolean(L, lbox_is_utf8(s, n));
  return 1;
}

/* core.utf8_repair(s) -> s as UTF-8: each byte in no well-formed sequence becomes U+FFFD */
static int l_utf8_repair(lua_State *L)
{
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  lua_settop(L, 1);
  size_t size = lbox_utf8_repair(NULL, s, n);
  if (size == n) /* a repair makes it longer */
    return 1;
  char *out = lbox_newuserdata(L, size);
  lbox_utf8_repair(out, s, n);
  lua_pushlstring(L, out, size);
  return 1;
}

/* core.json_quote(s) -> s as a JSON string in quotes */
static int l_json_quote(lua_State *L)
{
  size_t n;
  const char *s = luaL_checklstring(L, 1, &n);
  size_t size = lbox_json_quote(NULL, s, n);
  char small[256];
  char *out = size <= sizeof small ? small : lbox_newuserdata(L, size);
  lbox_json_quote(out, s, n);
  lua_pushlstring(L, out, size);
  return 1;
}

static const luaL_Reg functions[] = {{"now", l_now},
                                     {"random", l_random},
                                     {"uuid", l_uuid},
                                     {"base64_encode", l_base64_encode},
                                     {"base64_decode", l_base64_decode},
                                     {"websocket_key", l_websocket_key},
                                     {"websocket_accept", lbox__l_websocket_accept},
                                     {"websocket_peer", lbox__l_websocket_peer},
                                     {"is_utf8", l_is_utf8},
                                     {"utf8_repair", l_utf8_repair},
                                     {"json_quote", l_json_quote},
                                     {"engine", lbox__l_engine_new},
                                     {"sse_parser", lbox__l_sse_parser},
                                     {"exec_parser", lbox__l_exec_parser},
                                     {"file_size", lbox__l_file_size},
                                     {"is_directory", lbox__l_is_directory},
                                     {"directory", lbox__l_directory},
                                     {NULL, NULL}};

LBOX_API int luaopen_lbox_core(lua_State *L)
{
  lbox_checkversion(L);
  lbox__open_engine(L);
  lbox__open_watch(L);
  lbox__open_request(L);
  lbox__open_parser(L);
  lbox__open_local_file(L);
  lua_newtable(L); /* [core] */
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, -2, f->name);
  }
  lua_pushliteral(L, LBOX_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushliteral(L, LBOX_ABI);
  lua_setfield(L, -2, "abi");
  lua_pushstring(L, curl_version_info(CURLVERSION_NOW)->version);
  lua_setfield(L, -2, "curl");
  return 1;
}
