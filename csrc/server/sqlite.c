/*
** lbox.server.sqlite: as much of SQLite as the local server needs: statements with bound
*parameters,
** values that are exact and binary-safe. Errors raise SQLite's message. Statements are kept by
*their
** text, since the server has few and runs them often.
*/
#include <lauxlib.h>
#include <lua.h>
#include <sqlite3.h>
#include <string.h>

#include "modules.h"

#define DB_TYPE "lbox.sqlite"

struct database {
  sqlite3 *db; /* owned; NULL once closed */
};

static struct database *check(lua_State *L)
{
  struct database *d = luaL_checkudata(L, 1, DB_TYPE);
  if (!d->db)
    luaL_error(L, "the database is closed");
  return d;
}

static int raise(lua_State *L, struct database *d)
{
  return luaL_error(L, "sqlite: %s", d->db ? sqlite3_errmsg(d->db) : "not enough memory");
}

/* open(path) -> database */
static int l_open(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  struct database *d = lua_newuserdatauv(L, sizeof *d, 1);
  d->db = NULL;
  luaL_setmetatable(L, DB_TYPE);
  lua_newtable(L); /* statements by text, as light userdata */
  lua_setiuservalue(L, -2, 1);
  if (sqlite3_open_v2(path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
    return raise(L, d);
  sqlite3_busy_timeout(d->db, 5000);
  sqlite3_db_config(d->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  return 1;
}

/* db:exec(sql): statements without parameters and results */
static int l_exec(lua_State *L)
{
  struct database *d = check(L);
  if (sqlite3_exec(d->db, luaL_checkstring(L, 2), NULL, NULL, NULL) != SQLITE_OK)
    return raise(L, d);
  return 0;
}

/* The statement of the text at index 2, with the arguments after it bound. */
static sqlite3_stmt *prepare(lua_State *L, struct database *d)
{
  size_t len;
  const char *sql = luaL_checklstring(L, 2, &len);
  sqlite3_stmt *s;
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, -2) == LUA_TLIGHTUSERDATA) {
    s = lua_touserdata(L, -1);
    lua_pop(L, 2);
  } else {
    lua_pop(L, 1);
    if (sqlite3_prepare_v3(d->db, sql, (int)len, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK)
      raise(L, d);
    lua_pushvalue(L, 2);
    lua_pushlightuserdata(L, s);
    lua_rawset(L, -3);
    lua_pop(L, 1);
  }
  sqlite3_reset(s);
  sqlite3_clear_bindings(s);
  int want = sqlite3_bind_parameter_count(s);
  int top = lua_gettop(L);
  if (top - 2 > want)
    luaL_error(L, "sqlite: %d parameters for %d places", top - 2, want);
  for (int i = 1; i <= want; i++) {
    int index = i + 2;
    int rc;
    switch (index <= top ? lua_type(L, index) : LUA_TNIL) {
    case LUA_TNIL:
      rc = sqlite3_bind_null(s, i);
      break;
    case LUA_TBOOLEAN:
      rc = sqlite3_bind_int(s, i, lua_toboolean(L, index));
      break;
    case LUA_TNUMBER:
      rc = lua_isinteger(L, index) ? sqlite3_bind_int64(s, i, lua_tointeger(L, index))
                                   : sqlite3_bind_double(s, i, lua_tonumber(L, index));
      break;
    case LUA_TSTRING: {
      size_t n;
      const char *text = lua_tolstring(L, index, &n);
      /* Text with a NUL would be cut by some of SQLite's functions: it goes as bytes. */
      rc = memchr(text, 0, n) ? sqlite3_bind_blob64(s, i, text, n, SQLITE_TRANSIENT)
                              : sqlite3_bind_text64(s, i, text, n, SQLITE_TRANSIENT, SQLITE_UTF8);
      break;
    }
    default:
      luaL_error(L, "sqlite: a %s cannot be stored", luaL_typename(L, index));
      return NULL;
    }
    if (rc != SQLITE_OK)
      raise(L, d);
  }
  return s;
}

static void push_row(lua_State *L, sqlite3_stmt *s)
{
  int n = sqlite3_column_count(s);
  lua_createtable(L, 0, n);
  for (int i = 0; i < n; i++) {
    switch (sqlite3_column_type(s, i)) {
    case SQLITE_NULL:
      continue;
    case SQLITE_INTEGER:
      lua_pushinteger(L, (lua_Integer)sqlite3_column_int64(s, i));
      break;
    case SQLITE_FLOAT:
      lua_pushnumber(L, sqlite3_column_double(s, i));
      break;
    default: {
      const void *bytes = sqlite3_column_blob(s, i);
      lua_pushlstring(L, bytes ? bytes : "", (size_t)sqlite3_column_bytes(s, i));
    }
    }
    lua_setfield(L, -2, sqlite3_column_name(s, i));
  }
}

/* db:run(sql, …) -> number of changed rows */
static int l_run(lua_State *L)
{
  struct database *d = check(L);
  sqlite3_stmt *s = prepare(L, d);
  int rc;
  while ((rc = sqlite3_step(s)) == SQLITE_ROW)
    ;
  sqlite3_reset(s);
  if (rc != SQLITE_DONE)
    return raise(L, d);
  lua_pushinteger(L, sqlite3_changes(d->db));
  return 1;
}

/* db:rows(sql, …) -> list of rows, each a table by column name */
static int l_rows(lua_State *L)
{
  struct database *d = check(L);
  sqlite3_stmt *s = prepare(L, d);
  lua_newtable(L);
  int rc;
  for (lua_Integer n = 1; (rc = sqlite3_step(s)) == SQLITE_ROW; n++) {
    push_row(L, s);
    lua_rawseti(L, -2, n);
  }
  sqlite3_reset(s);
  return rc == SQLITE_DONE ? 1 : raise(L, d);
}

/* db:row(sql, …) -> the first row, or nil */
static int l_row(lua_State *L)
{
  struct database *d = check(L);
  sqlite3_stmt *s = prepare(L, d);
  int rc = sqlite3_step(s);
  if (rc == SQLITE_ROW)
    push_row(L, s);
  else
    lua_pushnil(L);
  sqlite3_reset(s);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? 1 : raise(L, d);
}

static int l_close(lua_State *L)
{
  struct database *d = luaL_checkudata(L, 1, DB_TYPE);
  sqlite3_stmt *s;
  while (d->db && (s = sqlite3_next_stmt(d->db, NULL)))
    sqlite3_finalize(s);
  sqlite3_close(d->db);
  d->db = NULL;
  return 0;
}

int luaopen_lbox_server_sqlite(lua_State *L)
{
  static const luaL_Reg methods[] = {{"exec", l_exec},     {"run", l_run},     {"rows", l_rows},
                                     {"row", l_row},       {"close", l_close}, {"__gc", l_close},
                                     {"__close", l_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
  luaL_newmetatable(L, DB_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
