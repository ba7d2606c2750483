/*
** The engine: one epoll set that holds libcurl's sockets, one timer, one wake-up and any other
** descriptor a caller wants watched. Its epoll descriptor is itself pollable, so any event loop can
** drive it with four calls: pollfd, timeout, step, and the events are always "readable".
**
** Nothing here knows Lua. Whatever happens is put on the ready queue as a number (the id of a
** request or of a watch), which the caller pops after step returned.
**
** An engine belongs to one thread and to the process that made it. A forked child shares the
** kernel's side of it with its parent, so there nothing works any more (lbox_engine_forked) but
** closing and dropping it, which does not disturb the parent.
*/
#ifndef LBOX_ENGINE_H
#define LBOX_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

enum lbox_rc { LBOX_OK = 0, LBOX_ENOMEM, LBOX_ESYS, LBOX_EFORK, LBOX_ECURL, LBOX_ECLOSED };

struct lbox_err {
  enum lbox_rc rc;
  int code; /* errno or a libcurl code, 0 when there is none */
  char text[256];
};

struct lbox_engine;
struct lbox_watch;

/* A member of anything that can become ready. Zero it, then set id. */
struct lbox_ready {
  struct lbox_ready *prev, *next;
  uint64_t id;
  bool queued;
};

/* Reference counted; the caller gets the first reference. */
enum lbox_rc lbox_engine_new(struct lbox_engine **out, struct lbox_err *err);
struct lbox_engine *lbox_engine_ref(struct lbox_engine *e);
void lbox_engine_unref(struct lbox_engine *e);

/* Cancels every request and closes every descriptor of the engine. Idempotent; the memory goes with
   the last reference. Not to be called from a watch callback. */
void lbox_engine_close(struct lbox_engine *e);
bool lbox_engine_closed(const struct lbox_engine *e);
bool lbox_engine_forked(const struct lbox_engine *e);

/* Readable whenever step has something to do. It may now and then be readable for nothing. */
int lbox_engine_pollfd(struct lbox_engine *e);

/* Milliseconds until step has something to do: 0 now, -1 nothing is awaited by time. */
int64_t lbox_engine_timeout(const struct lbox_engine *e);

/* Waits at most max_wait_ms (-1: as long as it takes) and works off what happened, within a budget.
   Returns early on a signal, and now and then for nothing. Returns whether anything is on the ready
   queue. */
bool lbox_engine_step(struct lbox_engine *e, int64_t max_wait_ms);

/* The next id that became ready, 0 when there is none. */
uint64_t lbox_engine_ready(struct lbox_engine *e);

/* Absolute time (lbox_now_us) at which the descriptor is readable and step returns; -1: none. */
void lbox_engine_deadline(struct lbox_engine *e, int64_t at_us);

/* While on, the descriptor stays readable and timeout is 0: the host has work of its own to do. */
void lbox_engine_wake(struct lbox_engine *e, bool on);

/* For sources of events: a fresh id, and putting a node on the queue (once) or taking it off. */
uint64_t lbox_engine_next_id(struct lbox_engine *e);
void lbox_engine_post(struct lbox_engine *e, struct lbox_ready *node);
void lbox_engine_unpost(struct lbox_engine *e, struct lbox_ready *node);

/* Watches a descriptor, which stays the caller's and must not be closed before the watch. `fn` runs
   inside step and may touch C memory, post, and close watches, its own included. NULL on failure.
   Events are EPOLL* bits, level triggered, or with EPOLLONESHOT until they are set again. */
typedef void (*lbox_watch_fn)(void *ud, uint32_t events);
struct lbox_watch *lbox_engine_watch(struct lbox_engine *e, int fd, uint32_t events,
                                     lbox_watch_fn fn, void *ud, struct lbox_err *err);
/* Sets other events, 0 for none. False with errno when the kernel cannot watch that descriptor. */
bool lbox_watch_set(struct lbox_watch *w, uint32_t events);
/* The watch is gone for the caller at once, and its callback is not called again. */
void lbox_watch_close(struct lbox_watch *w);

#endif
