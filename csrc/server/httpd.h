/*
** The HTTP server of local boxes, shared by its parts: httpd.c (the server inside the engine),
** httpd_peer.c (client connections and their time limits), httpd_request.c (requests and answers),
** httpd_lua.c (the Lua face).
**
** Ownership. Lua's server object and every request hold a reference to the server. A peer lives as
** long as libmicrohttpd's connection. A request lives while libmicrohttpd works on it (mhd) or Lua
** is to see it or holds it (held), and either may let go first.
*/
#ifndef LBOX_SERVER_HTTPD_H
#define LBOX_SERVER_HTTPD_H

#include <microhttpd.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/buf.h"
#include "core/engine.h"

enum {
  LBOX_HTTPD_LOW_WATER = 64 * 1024, /* unsent bytes below which a stream's writer hears of room */
  LBOX_HTTPD_BLOCK = 16 * 1024      /* bytes that must move within each time limit */
};

struct httpd_limits {
  const char *key;      /* who lacks this X-Box-Api-Key gets no memory for a body; NULL: all do */
  size_t max_body;      /* of one request */
  size_t max_buffered;  /* of all request bodies that Lua has not taken */
  unsigned connections; /* open at once; more wait in the kernel */
  unsigned waiting;     /* complete requests that Lua has not taken */
  int64_t idle_us;      /* for a request to come, or a block of its body */
  int64_t write_us;     /* for the client to take a block of an answer */
};

struct httpd {
  int refs;
  struct lbox_engine *engine; /* a reference */
  struct MHD_Daemon *daemon;  /* NULL once stopped */
  struct httpd_limits limits; /* its key owned */
  struct lbox_watch *activity, *tick;
  int tick_fd;
  bool ticking, running, stopping;
  bool dirty; /* libmicrohttpd has work that no descriptor tells of */
  int64_t ran_at;
  uint64_t progress; /* counts what callbacks saw happen */
  struct httpd_peer *peers;
  unsigned connections;
  unsigned open_requests; /* of which libmicrohttpd has not finished the answer */
  size_t buffered;
  struct httpd_request *waiting, *waiting_tail;
  unsigned waiting_count;
  struct lbox_ready ready;
};

struct httpd_address {
  sa_family_t family; /* 0: not known */
  uid_t uid;          /* of a Unix socket's peer */
  union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
  } net;
};

/* Where a client is, by which its time is limited. */
enum httpd_phase { PHASE_HEAD, PHASE_BODY, PHASE_HANDLER, PHASE_ANSWER };

struct httpd_peer {
  struct httpd *server; /* borrowed: peers end before the server stops */
  struct httpd_peer *prev, *next;
  struct MHD_Connection *mhd; /* owns this peer */
  int fd;                     /* libmicrohttpd's */
  struct lbox_watch *hangup;  /* NULL once it fired */
  struct httpd_address address;
  struct httpd_request *request;
  bool known; /* has sent the key */
  enum httpd_phase phase;
  int64_t moved_at; /* when the last block moved */
  size_t moved;     /* bytes since */
};

struct httpd_request {
  struct httpd *server;       /* a reference */
  struct MHD_Connection *mhd; /* NULL once libmicrohttpd is done with the request */
  struct httpd_peer *peer;    /* NULL with it */
  struct httpd_request *next_waiting;
  struct httpd_address address;
  struct lbox_buf head; /* target, method, then name and value of each header, each with a NUL */
  size_t method_at, headers_at;
  struct lbox_buf body, out;
  size_t reserved;         /* bytes of the body counted in the server's `buffered` */
  uint64_t received;       /* bytes of the body so far */
  size_t discarded;        /* those that were thrown away */
  unsigned refusal;        /* status this request gets for its body, 0: none */
  bool stranger;           /* comes without the key, and its body is thrown away */
  struct lbox_ready ready; /* posted: more of the body, room in `out`, or the client is gone */
  bool held, begun, queued, suspended;
  bool whole;                 /* the end of the body is here */
  struct MHD_Response *early; /* owned: an answer from before that, libmicrohttpd takes it then */
  unsigned early_status;
  bool answered;   /* there is a response, queued at libmicrohttpd or early */
  bool streamed;   /* and it is written piece by piece */
  bool finished;   /* `out` holds all that comes */
  bool aborted;    /* the answer is to be cut */
  bool dropped;    /* Lua let go without an answer */
  bool wants_room; /* the writer waits until `out` is below low water */
  bool gone;       /* the client hung up before the end of the answer */
  struct MHD_UpgradeResponseHandle *upgrade; /* the connection is no longer HTTP, until its end */
  int upgraded_fd;                           /* libmicrohttpd's, while there is that */
};

/* --- httpd.c ---------------------------------------------------------------------------------- */

/* Starts serving on a listening socket, which becomes the server's whatever happens. Returns the
   caller's reference, NULL on failure. */
struct httpd *lbox__httpd_new(struct lbox_engine *e, int fd, const struct httpd_limits *limits,
                              struct lbox_err *err);
void lbox__httpd_unref(struct httpd *h);

/* No new connection is taken from here on. */
void lbox__httpd_quiesce(struct httpd *h);

/* Ends everything: requests without an answer and unfinished answers are cut. Idempotent. */
void lbox__httpd_stop(struct httpd *h);

/* Lets libmicrohttpd work now. */
void lbox__httpd_run(struct httpd *h);

/* Something was written: it goes out now, or with what else is written in this turn of the host. */
void lbox__httpd_flush(struct httpd *h);

/* The next request, for the caller to hold; NULL: none. Of a large body it is handed over with the
   first part. */
struct httpd_request *lbox__httpd_accept(struct httpd *h);

/* --- httpd_peer.c ----------------------------------------------------------------------------- */

void lbox__peer_notify(void *server, struct MHD_Connection *mhd, void **socket_data,
                       enum MHD_ConnectionNotificationCode code);
struct httpd_peer *lbox__peer_of(struct MHD_Connection *mhd);
void lbox__peer_enter(struct httpd_peer *p, enum httpd_phase phase);
void lbox__peer_moved(struct httpd_peer *p, size_t n);

/* Cuts the connections of clients that are too slow. */
void lbox__peers_check(struct httpd *h);

/* --- httpd_request.c -------------------------------------------------------------------------- */

/* What libmicrohttpd calls; see its manual for the arguments. */
void *lbox__request_uri(void *server, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result lbox__request_handle(void *server, struct MHD_Connection *mhd, const char *url,
                                     const char *method, const char *version, const char *upload,
                                     size_t *upload_len, void **request);
void lbox__request_completed(void *server, struct MHD_Connection *mhd, void **request,
                             enum MHD_RequestTerminationCode code);

/* The client hung up. */
void lbox__request_hangup(struct httpd_request *r);

const char *lbox__request_header(const struct httpd_request *r, const char *name);

/* An answer 101, after which the connection is the holder's: see `upgrade`. NULL: no memory. */
struct MHD_Response *lbox__request_upgrade_response(struct httpd_request *r);

/* Gives the memory of the body back. */
void lbox__request_free_body(struct httpd_request *r);

/* The caller has taken what there was of the body: more may come. */
void lbox__request_took(struct httpd_request *r);

/* A response of these bytes, or, with bytes NULL, one for pieces to come. NULL: no memory. */
struct MHD_Response *lbox__request_response(struct httpd_request *r, const char *bytes, size_t n);

/* Forgets a response that was made and is not to be sent. */
void lbox__request_unanswer(struct httpd_request *r);

/* Sends the head, and of a whole response everything. Takes the response. */
void lbox__request_answer(struct httpd_request *r, unsigned status, struct MHD_Response *response);

/* Appends to a stream. False when there is no memory, or too much unsent. */
bool lbox__request_write(struct httpd_request *r, const char *bytes, size_t n);

/* Ends a stream cleanly, or so that the client sees a cut body. */
void lbox__request_end(struct httpd_request *r, bool cleanly);

/* The holder lets go: without an answer the client gets a 500, an unfinished stream is cut. */
void lbox__request_drop(struct httpd_request *r);

#endif
