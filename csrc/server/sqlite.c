/*
** lbox.server.sqlite: as much of SQLite as the local server needs: statements with bound
** parameters, and values that are exact and binary-safe. Errors raise SQLite's message as a string.
**
** A database object owns its connection and, through it, the statements, which are kept by their
** text since the server has few and runs them often.
*/
#include <lauxlib.h>
#include <lua.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>

#include "modules.h"

#define DB_TYPE "lbox.sqlite"

enum { BUSY_MS = 2000, MAX_STATEMENTS = 256 };

struct database {
  sqlite3 *db;    /* owned; NULL once closed */
  int statements; /* number of entries in the table that is its user value: text → light userdata */
};

static struct database *check(lua_State *L)
{
  struct database *d = luaL_checkudata(L, 1, DB_TYPE);
  if (!d->db)
    luaL_error(L, "sqlite: the database is closed");
  return d;
}

static int raise(lua_State *L, const struct database *d)
{
  return luaL_error(L, "sqlite: %s", d->db ? sqlite3_errmsg(d->db) : "not enough memory");
}

/* SQL text without a NUL byte, behind which SQLite would not look. */
static const char *check_sql(lua_State *L, int index)
{
  size_t n;
  const char *sql = luaL_checklstring(L, index, &n);
  luaL_argcheck(L, strlen(sql) == n, index, "a NUL byte in it");
  return sql;
}

/* open(path) -> database, made when it is not there */
static int l_open(lua_State *L)
{
  const char *path = check_sql(L, 1);
  struct database *d = lua_newuserdatauv(L, sizeof *d, 1);
  *d = (struct database){0};
  luaL_setmetatable(L, DB_TYPE);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  if (sqlite3_open_v2(path, &d->db, flags, NULL) != SQLITE_OK)
    return luaL_error(L, "sqlite: cannot open %s: %s", path,
                      d->db ? sqlite3_errmsg(d->db) : "not enough memory");
  sqlite3_busy_timeout(d->db, BUSY_MS);
  sqlite3_db_config(d->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  sqlite3_db_config(d->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  return 1;
}

static void execute(lua_State *L, const struct database *d, const char *sql)
{
  if (sqlite3_exec(d->db, sql, NULL, NULL, NULL) != SQLITE_OK)
    raise(L, d);
}

/* db:exec(sql): statements without parameters and results */
static int l_exec(lua_State *L)
{
  struct database *d = check(L);
  execute(L, d, check_sql(L, 2));
  return 0;
}

/* --- statements ------------------------------------------------------------------------------- */

static void forget_statements(lua_State *L, struct database *d)
{
  sqlite3_stmt *s;
  while ((s = sqlite3_next_stmt(d->db, NULL)))
    sqlite3_finalize(s);
  d->statements = 0;
  lua_newtable(L);
  lua_setiuservalue(L, 1, 1);
}

static sqlite3_stmt *compile(lua_State *L, struct database *d, const char *sql)
{
  sqlite3_stmt *s;
  const char *rest;
  if (d->statements >= MAX_STATEMENTS)
    forget_statements(L, d);
  if (sqlite3_prepare_v3(d->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, &rest) != SQLITE_OK)
    raise(L, d);
  if (!s || rest[strspn(rest, " \t\r\n;")]) {
    sqlite3_finalize(s);
    luaL_error(L, "sqlite: one statement expected");
  }
  d->statements++;
  return s;
}

/* The statement of the text at index 2, ready to be bound. Owned by the connection. */
static sqlite3_stmt *find_statement(lua_State *L, struct database *d)
{
  const char *sql = check_sql(L, 2);
  sqlite3_stmt *s;
  lua_getiuservalue(L, 1, 1); /* [statements] */
  lua_pushvalue(L, 2);
  if (lua_rawget(L, -2) == LUA_TLIGHTUSERDATA) {
    s = lua_touserdata(L, -1);
    lua_pop(L, 2);
    sqlite3_reset(s);
    return s;
  }
  lua_pop(L, 2);
  s = compile(L, d, sql);
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_pushlightuserdata(L, s);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  return s;
}

/* Binds the Lua value at `index`, which stays on the stack until the statement was stepped. */
static int bind(lua_State *L, sqlite3_stmt *s, int place, int index)
{
  size_t n;
  const char *text;
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    return sqlite3_bind_null(s, place);
  case LUA_TBOOLEAN:
    return sqlite3_bind_int(s, place, lua_toboolean(L, index));
  case LUA_TNUMBER:
    return lua_isinteger(L, index) ? sqlite3_bind_int64(s, place, lua_tointeger(L, index))
                                   : sqlite3_bind_double(s, place, lua_tonumber(L, index));
  case LUA_TSTRING:
    text = lua_tolstring(L, index, &n);
    /* Text with a NUL is cut by some of SQLite's functions: such a value goes as bytes. */
    return memchr(text, 0, n)
               ? sqlite3_bind_blob64(s, place, text, n, SQLITE_TRANSIENT)
               : sqlite3_bind_text64(s, place, text, n, SQLITE_TRANSIENT, SQLITE_UTF8);
  default:
    return luaL_error(L, "sqlite: a %s cannot be stored", luaL_typename(L, index));
  }
}

/* The statement of the text at index 2, with the arguments after it bound. */
static sqlite3_stmt *prepare(lua_State *L, struct database *d)
{
  int given = lua_gettop(L) - 2;
  sqlite3_stmt *s = find_statement(L, d);
  int places = sqlite3_bind_parameter_count(s);
  if (given != places)
    luaL_error(L, "sqlite: %d values for %d places", given, places);
  for (int i = 1; i <= places; i++) {
    if (bind(L, s, i, i + 2) != SQLITE_OK)
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
      const void *bytes = sqlite3_column_blob(s, i); /* NULL when there are none */
      lua_pushlstring(L, bytes ? bytes : "", (size_t)sqlite3_column_bytes(s, i));
    }
    }
    lua_setfield(L, -2, sqlite3_column_name(s, i));
  }
}

/* The end of a statement's use: it holds no lock and no copy of its values any more. */
static void finish(lua_State *L, const struct database *d, sqlite3_stmt *s, int rc)
{
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
    lua_pushfstring(L, "sqlite: %s", sqlite3_errmsg(d->db));
    sqlite3_reset(s);
    lua_error(L);
  }
  sqlite3_reset(s);
  sqlite3_clear_bindings(s);
}

/* db:run(sql, …) -> number of changed rows, id of the last inserted one */
static int l_run(lua_State *L)
{
  struct database *d = check(L);
  sqlite3_stmt *s = prepare(L, d);
  int rc;
  do
    rc = sqlite3_step(s);
  while (rc == SQLITE_ROW);
  finish(L, d, s, rc);
  lua_pushinteger(L, sqlite3_changes(d->db));
  lua_pushinteger(L, (lua_Integer)sqlite3_last_insert_rowid(d->db));
  return 2;
}

/* db:rows(sql, …) -> list of rows, each a table by column name; NULL is absent */
static int l_rows(lua_State *L)
{
  struct database *d = check(L);
  sqlite3_stmt *s = prepare(L, d);
  int rc;
  lua_newtable(L);
  for (lua_Integer n = 1; (rc = sqlite3_step(s)) == SQLITE_ROW; n++) {
    push_row(L, s);
    lua_rawseti(L, -2, n);
  }
  finish(L, d, s, rc);
  return 1;
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
  finish(L, d, s, rc);
  return 1;
}

/* db:transaction(fn, …) -> what fn(…) returns. Its changes are kept when it returns and undone when
   it raises; inside another transaction too. fn must not wait: other tasks would work in its
   transaction. */
static int l_transaction(lua_State *L)
{
  struct database *d = check(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  bool inner = !sqlite3_get_autocommit(d->db);
  execute(L, d, inner ? "SAVEPOINT inner_one" : "BEGIN IMMEDIATE");
  int rc = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0); /* [db, results… or error] */
  if (!d->db)
    return luaL_error(L, "sqlite: the database was closed in a transaction");
  if (rc == LUA_OK &&
      sqlite3_exec(d->db, inner ? "RELEASE inner_one" : "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
    return lua_gettop(L) - 1;
  if (rc == LUA_OK)
    lua_pushfstring(L, "sqlite: %s", sqlite3_errmsg(d->db));
  sqlite3_exec(d->db, inner ? "ROLLBACK TO inner_one; RELEASE inner_one" : "ROLLBACK", NULL, NULL,
               NULL);
  return lua_error(L);
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
  static const luaL_Reg methods[] = {{"exec", l_exec},
                                     {"run", l_run},
                                     {"rows", l_rows},
                                     {"row", l_row},
                                     {"transaction", l_transaction},
                                     {"close", l_close},
                                     {"__gc", l_close},
                                     {"__close", l_close},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
  luaL_newmetatable(L, DB_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
