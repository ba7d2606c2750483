/* Shared by httpd.c (libmicrohttpd) and httpd_lua.c (its Lua face). */
#ifndef LBOX_SERVER_HTTPD_H
#define LBOX_SERVER_HTTPD_H

#include <fcntl.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"
#include "core/engine.h"

/* Unsent bytes of a stream below which its writer is told that there is room. */
enum { LBOX_HTTPD_LOW_WATER = 64 * 1024 };

struct httpd {
  struct lbox_engine *engine; /* a reference; NULL once stopped */
  struct MHD_Daemon *daemon;
  struct lbox_watch *activity, *tick;
  int tick_fd;
  bool ticking, running;
  int connections;
  size_t max_body;
  struct conn *all;
  struct conn *waiting, *waiting_tail; /* complete requests Lua has not taken yet */
  struct lbox_ready ready;
};

struct conn {
  int refs;
  struct httpd *httpd;        /* borrowed: its userdata outlives the connections' */
  struct MHD_Connection *mhd; /* NULL once the exchange is over */
  struct conn *prev, *next, *next_waiting;
  char *uri; /* request target as it was sent */
  char method[16];
  struct lbox_buf body, out;
  struct MHD_Response *response; /* to be queued when the connection is resumed */
  unsigned status;
  struct lbox_watch *hangup;
  int hangup_fd;
  struct lbox_ready ready;
  bool begun, queued, suspended, too_large; /* of the request */
  bool answered, streamed, finished, aborted, dropped, wants_room;
  bool gone; /* the client went away before the end */
  bool over; /* libmicrohttpd is done with it */
};

bool lbox__httpd_start(struct httpd *h, struct lbox_engine *e, int fd, size_t max_body,
                       struct lbox_err *err);
void lbox__httpd_stop(struct httpd *h);
void lbox__httpd_run(struct httpd *h);

/* The next complete request, with a reference for the caller; NULL: none. */
struct conn *lbox__httpd_accept(struct httpd *h);

/* Answers; takes the response. */
void lbox__conn_respond(struct conn *c, unsigned status, struct MHD_Response *response);
struct MHD_Response *lbox__conn_stream(struct conn *c);
bool lbox__conn_write(struct conn *c, const char *bytes, size_t n);
/* Ends a stream, cleanly or so that the client sees a cut body. */
void lbox__conn_end(struct conn *c, bool cleanly);
/* Gives back the caller's reference. */
void lbox__conn_drop(struct conn *c);

#endif
