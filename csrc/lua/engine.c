/* The engine as a Lua object, and the watching of file descriptors. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "binding.h"

#define ENGINE_TYPE "lbox.engine"
#define WATCH_TYPE  "lbox.watch"

struct engine_object {
  struct lbox_engine *engine; /* a reference; NULL once collected */
};

struct watch_object {
  struct lbox_engine *engine; /* a reference */
  struct lbox_watch *watch;   /* owned; NULL once closed */
  struct lbox_ready ready;
  uint32_t events; /* what happened since it was last asked */
};

static struct lbox_engine *check_usable(lua_State *L, struct lbox_engine *e)
{
  if (!e || lbox_engine_closed(e))
    luaL_error(L, "lbox.core: the engine is closed");
  if (lbox_engine_forked(e))
    luaL_error(L, "lbox.core: the engine belongs to the parent of this forked process");
  return e;
}

struct lbox_engine *lbox_lua_engine(lua_State *L, int index)
{
  struct engine_object *object = luaL_checkudata(L, index, ENGINE_TYPE);
  return check_usable(L, object->engine);
}

int lbox__l_engine_new(lua_State *L)
{
  struct lbox_err err;
  struct engine_object *object = lbox__new_object(L, ENGINE_TYPE, sizeof *object);
  if (lbox_engine_new(&object->engine, &err) != LBOX_OK) {
    object->engine = NULL;
    return lbox__raise(L, &err);
  }
  return 1;
}

static int l_pollfd(lua_State *L)
{
  lua_pushinteger(L, lbox_engine_pollfd(lbox_lua_engine(L, 1)));
  return 1;
}

/* engine:timeout() -> ms until step has something to do, nil when nothing is awaited by time */
static int l_timeout(lua_State *L)
{
  int64_t ms = lbox_engine_timeout(lbox_lua_engine(L, 1));
  if (ms < 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, (lua_Number)ms);
  return 1;
}

/* engine:step(max_wait_ms | nil) -> whether anything is ready */
static int l_step(lua_State *L)
{
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  lua_pushboolean(L, lbox_engine_step(e, lbox__opt_time(L, 2, 1)));
  return 1;
}

/* engine:ready() -> the next id that became ready, or nil */
static int l_ready(lua_State *L)
{
  uint64_t id = lbox_engine_ready(lbox_lua_engine(L, 1));
  if (id)
    lua_pushinteger(L, (lua_Integer)id);
  else
    lua_pushnil(L);
  return 1;
}

/* engine:deadline(ms | nil): absolute time, as core.now() gives it */
static int l_deadline(lua_State *L)
{
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  lbox_engine_deadline(e, lbox__opt_time(L, 2, 1000));
  return 0;
}

/* engine:wake(on): while on, the descriptor stays readable */
static int l_wake(lua_State *L)
{
  lbox_engine_wake(lbox_lua_engine(L, 1), lua_toboolean(L, 2));
  return 0;
}

static int l_close(lua_State *L)
{
  struct engine_object *object = luaL_checkudata(L, 1, ENGINE_TYPE);
  if (object->engine)
    lbox_engine_close(object->engine);
  return 0;
}

static int l_engine_gc(lua_State *L)
{
  struct engine_object *object = luaL_checkudata(L, 1, ENGINE_TYPE);
  struct lbox_engine *e = object->engine;
  object->engine = NULL;
  lbox_engine_unref(e);
  return 0;
}

/* --- watches ---------------------------------------------------------------------------------- */

static void on_event(void *ud, uint32_t events)
{
  struct watch_object *w = ud;
  w->events |= events;
  lbox_engine_post(w->engine, &w->ready);
}

int lbox__l_engine_watch(lua_State *L)
{
  struct lbox_engine *e = lbox_lua_engine(L, 1);
  lua_Integer fd = luaL_checkinteger(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= INT32_MAX, 2, "not a file descriptor");
  struct lbox_err err;
  struct watch_object *w = lbox__new_object(L, WATCH_TYPE, sizeof *w);
  w->watch = lbox_engine_watch(e, (int)fd, 0, on_event, w, &err);
  if (!w->watch)
    return lbox__raise(L, &err);
  w->engine = lbox_engine_ref(e);
  w->ready.id = lbox_engine_next_id(e);
  return 1;
}

static struct watch_object *check_watch(lua_State *L)
{
  struct watch_object *w = lbox__self(L, WATCH_TYPE);
  if (!w->watch)
    luaL_error(L, "lbox.core: the watch is closed");
  return w;
}

static int l_watch_id(lua_State *L)
{
  const struct watch_object *w = lbox__self(L, WATCH_TYPE);
  lua_pushinteger(L, (lua_Integer)w->ready.id);
  return 1;
}

/* watch:arm("r" | "w" | "rw"): posts its id once, when that is possible or the peer is gone */
static int l_watch_arm(lua_State *L)
{
  struct watch_object *w = check_watch(L);
  uint32_t wanted = 0;
  for (const char *c = luaL_checkstring(L, 2); *c; c++) {
    luaL_argcheck(L, *c == 'r' || *c == 'w', 2, "'r', 'w' or 'rw'");
    wanted |= *c == 'r' ? EPOLLIN : EPOLLOUT;
  }
  check_usable(L, w->engine);
  if (lbox_watch_set(w->watch, wanted | EPOLLRDHUP | EPOLLONESHOT))
    return 0;
  if (errno != EPERM)
    return luaL_error(L, "lbox.core: the descriptor cannot be watched: %s", strerror(errno));
  on_event(w, wanted); /* files on disk, /dev/null: they never make one wait */
  return 0;
}

/* watch:events() -> what happened since it was last asked, as letters r, w, h; nil when nothing */
static int l_watch_events(lua_State *L)
{
  struct watch_object *w = check_watch(L);
  char text[4];
  size_t n = 0;
  if (w->events & EPOLLIN)
    text[n++] = 'r';
  if (w->events & EPOLLOUT)
    text[n++] = 'w';
  if (w->events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
    text[n++] = 'h';
  w->events = 0;
  if (n)
    lua_pushlstring(L, text, n);
  else
    lua_pushnil(L);
  return 1;
}

static int l_watch_close(lua_State *L)
{
  struct watch_object *w = luaL_checkudata(L, 1, WATCH_TYPE);
  if (!w->watch)
    return 0;
  lbox_engine_unpost(w->engine, &w->ready);
  lbox_watch_close(w->watch);
  w->watch = NULL;
  lbox_engine_unref(w->engine);
  w->engine = NULL;
  return 0;
}

void lbox__open_engine(lua_State *L)
{
  static const luaL_Reg methods[] = {{"pollfd", l_pollfd},
                                     {"timeout", l_timeout},
                                     {"step", l_step},
                                     {"ready", l_ready},
                                     {"deadline", l_deadline},
                                     {"wake", l_wake},
                                     {"close", l_close},
                                     {"request", lbox__l_engine_request},
                                     {"watch", lbox__l_engine_watch},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_engine_gc}, {NULL, NULL}};
  lbox__new_type(L, ENGINE_TYPE, methods, meta);
}

void lbox__open_watch(lua_State *L)
{
  static const luaL_Reg methods[] = {{"id", l_watch_id},
                                     {"arm", l_watch_arm},
                                     {"events", l_watch_events},
                                     {"close", l_watch_close},
                                     {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_watch_close}, {NULL, NULL}};
  lbox__new_type(L, WATCH_TYPE, methods, meta);
}
