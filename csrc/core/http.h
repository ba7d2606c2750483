/*
** HTTP requests over an engine. A request collects its answer's bytes in a buffer; who reads it (a
** parser, Lua) consumes them, and a buffer nobody reads stops the transfer at a high-water mark.
**
** A POST (or anything that is not idempotent) is never sent twice: libcurl would silently repeat it
** when a reused connection closes before the answer, so its body cannot be rewound once a byte
** left, and without a body, or when the connection idled, it gets a fresh connection.
**
** References: one is the caller's, one the engine's while the transfer runs. Nothing calls back.
*/
#ifndef LBOX_HTTP_H
#define LBOX_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/engine.h"
#include "core/multipart.h"

struct lbox_http;

struct lbox_http_options {
  const char *method, *url;
  const char *const *headers; /* "Name: value" without line breaks, ended by NULL; may be NULL */
  const char *body;           /* may be NULL; copied */
  size_t body_len;
  const struct lbox_part *parts; /* instead of a body: multipart/form-data; may be NULL; copied. */
  size_t n_parts;                /* Its Content-Type is set here, and not to be in `headers` */
  bool upgrade; /* a stream whose answer may be 101, after which lbox_http_write sends; no body */
  bool stream;  /* the body may be left unread: HTTP/1.1, a connection of its own, flow control */
  bool http1;   /* HTTP/1.1 also for a body that is read whole */
  size_t max_body; /* most bytes of the answer held at a time */
  const char *unix_socket, *proxy, *no_proxy, *ca_file; /* may be NULL */
};

/* What broke a transfer. The names are what callers show: lbox_http_failure_name. */
enum lbox_http_failure {
  LBOX_HTTP_OK = 0,
  LBOX_HTTP_RESOLVE,   /* the host's name was not found */
  LBOX_HTTP_CONNECT,   /* refused, unreachable, no such socket */
  LBOX_HTTP_TLS,       /* certificate or handshake */
  LBOX_HTTP_PROXY,     /* the proxy's name or answer */
  LBOX_HTTP_SEND,      /* the connection broke while sending */
  LBOX_HTTP_RECV,      /* the connection broke before the answer */
  LBOX_HTTP_REWIND,    /* it broke before the answer, and sending again could do the work twice */
  LBOX_HTTP_PARTIAL,   /* the answer's body was cut */
  LBOX_HTTP_TOO_LARGE, /* headers or body over the limit */
  LBOX_HTTP_CANCELLED, /* by lbox_http_cancel */
  LBOX_HTTP_FILE,      /* a file of its body could not be read, or changed while it was sent */
  LBOX_HTTP_OTHER
};

/* Starts a request. The options are borrowed for the call. The caller gets a reference. NULL only
   when memory is out, libcurl lacks something, or the engine is closed or another process's (err
   says which); every other trouble shows as a failed request. */
struct lbox_http *lbox_http_start(struct lbox_engine *e, const struct lbox_http_options *opts,
                                  struct lbox_err *err);
void lbox_http_unref(struct lbox_http *h);

/* Ends the transfer if it runs; idempotent. Not to be called from a watch callback. */
void lbox_http_cancel(struct lbox_http *h);

uint64_t lbox_http_id(const struct lbox_http *h);

/* HTTP status once the final header block is complete, else 0. */
int lbox_http_status(const struct lbox_http *h);

/* The last header of that name, NULL if there is none. Borrowed from the request. */
const char *lbox_http_header(const struct lbox_http *h, const char *name);

/* True once no more bytes will come; what is buffered may still be read. */
bool lbox_http_done(const struct lbox_http *h);

enum lbox_http_failure lbox_http_failure(const struct lbox_http *h);
const char *lbox_http_failure_name(enum lbox_http_failure failure);
/* A sentence about the failure; borrowed from the request. */
const char *lbox_http_failure_text(const struct lbox_http *h);
int lbox_http_curl_code(const struct lbox_http *h);
/* False: provably no byte of the request has left this machine. */
bool lbox_http_was_sent(const struct lbox_http *h);

/* Sends bytes after the headers of an upgrade, in their order. False, and nothing, when they do not
   fit beside what is not sent yet (LBOX_HTTP_MAX_UNSENT), or the transfer is over. There is news
   when all is sent. */
enum { LBOX_HTTP_MAX_UNSENT = 1024 * 1024 };
bool lbox_http_write(struct lbox_http *h, const void *bytes, size_t n);
size_t lbox_http_unsent(const struct lbox_http *h);

/* How much of the request's body was given to the network so far, and how much it has. Of a body
   made of parts there is news while it is sent, some times a second. */
uint64_t lbox_http_body_sent(const struct lbox_http *h);
uint64_t lbox_http_body_size(const struct lbox_http *h);

/* True when the body is a stream to be read piece by piece: asked for, and the status is 2xx. Of
   any other answer to a stream at most 64 KiB are kept as a plain body, and the rest is not waited
   for. */
bool lbox_http_streaming(const struct lbox_http *h);

/* The unread bytes of the body. The reader consumes with lbox_buf_consume and then calls
   lbox_http_consumed; `hungry` says it needs more than is there to get on: then the high-water mark
   counts from what is there (never above max_body). */
struct lbox_buf *lbox_http_body(struct lbox_http *h);
void lbox_http_consumed(struct lbox_http *h, bool hungry);

#endif
