/* A request as http.c, transfer.c and multi.c see it. */
#ifndef LBOX_HTTP_INTERNAL_H
#define LBOX_HTTP_INTERNAL_H

#include <curl/curl.h>

#include "core/buf.h"
#include "core/engine_internal.h"
#include "core/http.h"

enum {
  /* A stream stops when it holds so much unread, what came last not counted. It begins with the
     least, and gets more each time its reader has caught up, up to an equal share of what all
     streams of the engine may hold; but never less than the least. */
  LBOX__LEAST_UNREAD = 4 * 1024,
  LBOX__MOST_UNREAD = 256 * 1024,
  LBOX__ALL_UNREAD = 4 * 1024 * 1024,
  LBOX__MAX_HEADERS = 64 * 1024,
  LBOX__MAX_ERROR_BODY = 64 * 1024 /* of an answer that is not 2xx to a streaming request */
};

struct lbox_http {
  int refs;
  struct lbox_engine *engine; /* a reference, dropped with the request */
  CURL *easy;                 /* owned; NULL once the transfer is over */
  struct curl_slist *headers;
  struct lbox_ready ready;
  struct lbox_http *prev, *next; /* in engine->requests while in flight */
  struct lbox_http *next_resume;
  bool in_flight;

  char *body;                       /* owned copy of what is sent */
  struct lbox_multipart *multipart; /* owned; what is sent instead, NULL without parts */
  uint64_t body_len, body_off;
  int64_t told_at;   /* when there was news of the sending last */
  bool once;         /* sending it twice could do the work twice */
  bool local_socket; /* over AF_UNIX */
  int attempts;

  bool stream;
  bool upgrade;
  struct lbox_buf output; /* of an upgrade, what is not sent yet */
  bool send_paused;       /* libcurl was told that there is none */
  bool hung_up;           /* the peer sends nothing more: there is nobody to send to */
  bool paused;            /* libcurl gives no more of the body */
  bool caught_up;         /* and may again */
  bool resuming;          /* it is told so in the next step */
  bool hungry;     /* the reader wants more than there is, and nothing came since it said so */
  size_t asked_at; /* what was there unread when it said so */
  size_t window;   /* what it may hold unread, if that is within its share */
  int status;
  bool headers_complete, truncated;
  struct lbox_buf header_text; /* "Name: value\0" of the last answer, one after the other */
  struct lbox_buf answer;

  enum lbox_http_failure failure;
  CURLcode curl_code;
  bool sent;
  int socket_errno;                  /* why there was no socket, 0 if there was one */
  const char *reason;                /* static; ours, when we broke it off */
  char curl_reason[CURL_ERROR_SIZE]; /* libcurl's */
};

/* http.c: an equal share of what all streams of the engine may hold unread; how much this one may.
 */
size_t lbox__unread_share(const struct lbox_engine *e);
size_t lbox__unread_limit(const struct lbox_http *h);

/* transfer.c: tells libcurl everything about the request. Not CURLE_OK: it cannot be done. */
CURLcode lbox__transfer_setup(struct lbox_http *h, const struct lbox_http_options *opts);

/* http.c: libcurl is told in the next step to go on with the transfer: there is room to read, or
   something to send. */
void lbox__http_resume(struct lbox_http *h);

/* http.c: the transfer ended by itself with that code, or is broken off for that reason
   (a static text). The request may be gone when these return. */
void lbox__http_complete(struct lbox_http *h, CURLcode code);
void lbox__http_abort(struct lbox_http *h, enum lbox_http_failure failure, const char *reason);

#endif
