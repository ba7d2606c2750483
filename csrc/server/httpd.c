/*
** lbox.server.httpd: libmicrohttpd nested in the engine. Its callbacks touch C memory only; a
*request
** whose body is complete is suspended and put on a list, which Lua takes it from.
**
** Ownership: a connection object has one reference of libmicrohttpd (until it says completed) and
*one
** of Lua's userdata. Either may go first: a client that vanished leaves an object that is `gone`,
*an
** object that Lua dropped without an answer becomes a 500.
*/
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/buf.h"
#include "httpd.h"
#include "modules.h"

enum {
  MAX_CONNECTIONS = 512,
  CONNECTION_MEMORY = 64 * 1024, /* request line and headers of one connection */
  IDLE_TIMEOUT_S = 75,           /* also how long an answer may stall */
  STREAM_BLOCK = 32 * 1024,
  MAX_ROUNDS = 16 /* of libmicrohttpd per call: others have their turn too */
};

/* --- connections, as libmicrohttpd sees them ---------------------------------------------------
 */

static void conn_unref(struct conn *c)
{
  if (--c->refs > 0)
    return;
  lbox_buf_free(&c->body);
  lbox_buf_free(&c->out);
  free(c->uri);
  free(c);
}

static void drop_watch(struct conn *c)
{
  if (c->hangup) {
    lbox_watch_close(c->hangup);
    close(c->hangup_fd);
  }
  c->hangup = NULL;
}

static void resume(struct conn *c)
{
  if (c->suspended && c->mhd) {
    c->suspended = false;
    MHD_resume_connection(c->mhd);
  }
}

static void suspend(struct conn *c)
{
  c->suspended = true;
  MHD_suspend_connection(c->mhd);
}

/* The client hung up. libmicrohttpd does not see that while the connection is suspended. */
static void on_hangup(void *ud, uint32_t events)
{
  struct conn *c = ud;
  (void)events;
  c->gone = true;
  drop_watch(c);
  lbox_engine_post(c->httpd->engine, &c->ready);
  resume(c);
}

static void watch_hangup(struct conn *c)
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
  struct lbox_err err;
  if (c->hangup || !info)
    return;
  /* A copy: the descriptor itself is in libmicrohttpd's epoll set. */
  c->hangup_fd = fcntl(info->connect_fd, F_DUPFD_CLOEXEC, 0);
  if (c->hangup_fd < 0)
    return;
  c->hangup = lbox_engine_watch(c->httpd->engine, c->hangup_fd, EPOLLRDHUP, on_hangup, c, &err);
  if (!c->hangup)
    close(c->hangup_fd);
}

static enum MHD_Result answer_now(struct MHD_Connection *mhd, unsigned status, const char *json)
{
  struct MHD_Response *r = MHD_create_response_from_buffer(strlen(json), (void *)(uintptr_t)json,
                                                           MHD_RESPMEM_PERSISTENT);
  if (!r)
    return MHD_NO;
  MHD_add_response_header(r, "Content-Type", "application/json");
  MHD_add_response_header(r, "Connection", "close");
  enum MHD_Result result = MHD_queue_response(mhd, status, r);
  MHD_destroy_response(r);
  return result;
}

/* Called with the raw request target before anything else: what it returns is the connection's own.
 */
static void *on_uri(void *ud, const char *uri, struct MHD_Connection *mhd)
{
  struct httpd *h = ud;
  struct conn *c = calloc(1, sizeof *c);
  if (!c)
    return NULL;
  c->refs = 1;
  c->httpd = h;
  c->mhd = mhd;
  c->uri = strdup(uri);
  lbox_buf_init(&c->body, h->max_body);
  lbox_buf_init(&c->out, SIZE_MAX / 2);
  c->ready.id = lbox_engine_next_id(h->engine);
  c->next = h->all;
  if (c->next)
    c->next->prev = c;
  h->all = c;
  return c;
}

/* Paths are decoded by the router, which knows segments: here they stay as they were sent. */
static size_t keep_escapes(void *ud, struct MHD_Connection *mhd, char *text)
{
  (void)ud;
  (void)mhd;
  return strlen(text);
}

/* Bytes of a streamed answer. */
static ssize_t on_stream(void *ud, uint64_t position, char *out, size_t max)
{
  struct conn *c = ud;
  (void)position;
  size_t len = lbox_buf_len(&c->out);
  if (c->gone || c->aborted)
    return MHD_CONTENT_READER_END_WITH_ERROR;
  if (len == 0) {
    if (c->finished)
      return MHD_CONTENT_READER_END_OF_STREAM;
    suspend(c);
    return 0;
  }
  if (len > max)
    len = max;
  memcpy(out, lbox_buf_data(&c->out), len);
  lbox_buf_consume(&c->out, len);
  if (c->wants_room && lbox_buf_len(&c->out) < LBOX_HTTPD_LOW_WATER) {
    c->wants_room = false;
    lbox_engine_post(c->httpd->engine, &c->ready);
  }
  return (ssize_t)len;
}

static enum MHD_Result send_answer(struct conn *c)
{
  struct MHD_Response *r = c->response;
  c->response = NULL;
  c->answered = true;
  enum MHD_Result result = MHD_queue_response(c->mhd, c->status, r);
  MHD_destroy_response(r);
  return result;
}

static enum MHD_Result check_head(struct conn *c, struct MHD_Connection *mhd, const char *version,
                                  bool *refused)
{
  const char *length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Content-Length");
  const char *coding = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Transfer-Encoding");
  *refused = true;
  if (length && coding)
    return answer_now(mhd, 400, "{\"error\":\"Content-Length and Transfer-Encoding together\"}");
  if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
    return answer_now(mhd, 505, "{\"error\":\"HTTP/1.1 is spoken here\"}");
  if (length && strtoull(length, NULL, 10) > c->httpd->max_body)
    return answer_now(mhd, 413, "{\"error\":\"the request body is too large\"}");
  *refused = false;
  return MHD_YES;
}

static enum MHD_Result on_request(void *ud, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **connection_data)
{
  struct httpd *h = ud;
  struct conn *c = *connection_data;
  (void)url;
  if (!c || !c->uri)
    return MHD_NO;
  if (!c->begun) {
    bool refused;
    c->begun = true;
    snprintf(c->method, sizeof c->method, "%s", method);
    return check_head(c, mhd, version, &refused);
  }
  if (*upload_len > 0) {
    c->too_large = c->too_large || !lbox_buf_append(&c->body, upload, *upload_len);
    *upload_len = 0;
    return MHD_YES;
  }
  if (c->too_large)
    return answer_now(mhd, 413, "{\"error\":\"the request body is too large\"}");
  if (c->gone)
    return MHD_NO;
  if (c->response)
    return send_answer(c);
  if (c->queued)
    return c->dropped ? answer_now(mhd, 500, "{\"error\":\"the server gave no answer\"}") : MHD_NO;
  c->queued = true;
  *(h->waiting_tail ? &h->waiting_tail->next_waiting : &h->waiting) = c;
  h->waiting_tail = c;
  suspend(c);
  watch_hangup(c);
  lbox_engine_post(h->engine, &h->ready);
  return MHD_YES;
}

static void unlink_conn(struct conn *c)
{
  struct httpd *h = c->httpd;
  *(c->prev ? &c->prev->next : &h->all) = c->next;
  if (c->next)
    c->next->prev = c->prev;
  struct conn *before = NULL;
  for (struct conn *at = h->waiting; at; before = at, at = at->next_waiting) {
    if (at != c)
      continue;
    *(before ? &before->next_waiting : &h->waiting) = c->next_waiting;
    if (h->waiting_tail == c)
      h->waiting_tail = before;
    break;
  }
}

static void on_completed(void *ud, struct MHD_Connection *mhd, void **connection_data,
                         enum MHD_RequestTerminationCode code)
{
  struct conn *c = *connection_data;
  (void)ud;
  (void)mhd;
  if (!c)
    return;
  *connection_data = NULL;
  c->gone = c->gone || code != MHD_REQUEST_TERMINATED_COMPLETED_OK;
  c->over = true;
  c->mhd = NULL;
  drop_watch(c);
  unlink_conn(c);
  if (c->response)
    MHD_destroy_response(c->response);
  c->response = NULL;
  if (c->refs > 1)
    lbox_engine_post(c->httpd->engine, &c->ready);
  else
    lbox_engine_unpost(c->httpd->engine, &c->ready);
  conn_unref(c);
}

static void on_connection(void *ud, struct MHD_Connection *mhd, void **socket_data,
                          enum MHD_ConnectionNotificationCode code)
{
  struct httpd *h = ud;
  (void)mhd;
  (void)socket_data;
  h->connections += code == MHD_CONNECTION_NOTIFY_STARTED ? 1 : -1;
}

/* --- the daemon --------------------------------------------------------------------------------
 */

/* Idle connections are closed by time: a tick a second while there are any. `now`: libmicrohttpd
   has more to do at once, which its epoll descriptor does not show. */
static void set_tick(struct httpd *h, bool now)
{
  bool want = h->connections > 0;
  if (want == h->ticking && !now)
    return;
  struct itimerspec spec = {0};
  spec.it_interval.tv_sec = spec.it_value.tv_sec = want ? 1 : 0;
  if (now) {
    spec.it_value.tv_sec = 0;
    spec.it_value.tv_nsec = 1;
  }
  timerfd_settime(h->tick_fd, 0, &spec, NULL);
  h->ticking = want;
}

void lbox__httpd_run(struct httpd *h)
{
  if (!h->daemon || h->running)
    return;
  h->running = true;
  bool more = true;
  for (int i = 0; more && i < MAX_ROUNDS; i++) {
    MHD_UNSIGNED_LONG_LONG timeout;
    MHD_run(h->daemon);
    more = MHD_get_timeout(h->daemon, &timeout) == MHD_YES && timeout == 0;
  }
  h->running = false;
  set_tick(h, more);
}

static void on_activity(void *ud, uint32_t events)
{
  (void)events;
  lbox__httpd_run(ud);
}

static void on_tick(void *ud, uint32_t events)
{
  struct httpd *h = ud;
  uint64_t count;
  (void)events;
  if (read(h->tick_fd, &count, sizeof count) > 0)
    lbox__httpd_run(h);
}

bool lbox__httpd_start(struct httpd *h, struct lbox_engine *e, int fd, size_t max_body,
                       struct lbox_err *err)
{
  h->max_body = max_body;
  h->tick_fd = -1;
  h->engine = lbox_engine_ref(e);
  h->ready.id = lbox_engine_next_id(e);
  err->text[0] = 0;
  h->daemon = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL, NULL, on_request, h,
      MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
      MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      (size_t)CONNECTION_MEMORY, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h,
      MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
      h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_END);
  if (!h->daemon) {
    snprintf(err->text, sizeof err->text, "the HTTP server cannot be started");
    return false;
  }
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  h->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (info && h->tick_fd >= 0) {
    h->activity = lbox_engine_watch(e, info->epoll_fd, EPOLLIN, on_activity, h, err);
    h->tick = lbox_engine_watch(e, h->tick_fd, EPOLLIN, on_tick, h, err);
  }
  return h->activity && h->tick;
}

void lbox__httpd_stop(struct httpd *h)
{
  if (!h->engine)
    return;
  if (h->daemon) {
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);
    if (fd != MHD_INVALID_SOCKET)
      close(fd);
    /* A suspended connection must not be there when the daemon stops. */
    for (struct conn *c = h->all; c; c = c->next) {
      c->aborted = c->gone = true;
      resume(c);
    }
    lbox__httpd_run(h);
    MHD_stop_daemon(h->daemon);
    h->daemon = NULL;
  }
  if (h->activity)
    lbox_watch_close(h->activity);
  if (h->tick)
    lbox_watch_close(h->tick);
  if (h->tick_fd >= 0)
    close(h->tick_fd);
  lbox_engine_unpost(h->engine, &h->ready);
  lbox_engine_unref(h->engine);
  h->engine = NULL;
}

struct conn *lbox__httpd_accept(struct httpd *h)
{
  struct conn *c = h->waiting;
  if (!c)
    return NULL;
  h->waiting = c->next_waiting;
  if (!h->waiting)
    h->waiting_tail = NULL;
  c->next_waiting = NULL;
  c->refs++;
  return c;
}

void lbox__conn_respond(struct conn *c, unsigned status, struct MHD_Response *response)
{
  if (!c->mhd || c->response || c->answered) {
    MHD_destroy_response(response);
    return;
  }
  c->status = status;
  c->response = response;
  resume(c);
  lbox__httpd_run(c->httpd);
}

struct MHD_Response *lbox__conn_stream(struct conn *c)
{
  return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_stream, c, NULL);
}

bool lbox__conn_write(struct conn *c, const char *bytes, size_t n)
{
  if (c->gone || c->over)
    return true;
  if (!lbox_buf_append(&c->out, bytes, n))
    return false;
  resume(c);
  lbox__httpd_run(c->httpd);
  return true;
}

void lbox__conn_end(struct conn *c, bool cleanly)
{
  if (cleanly)
    c->finished = true;
  else
    c->aborted = true;
  if (c->mhd) {
    resume(c);
    lbox__httpd_run(c->httpd);
  }
}

void lbox__conn_drop(struct conn *c)
{
  if (c->mhd && !c->answered && !c->response) {
    c->dropped = true;
    resume(c);
    lbox__httpd_run(c->httpd);
  } else if (c->mhd && !c->finished) {
    lbox__conn_end(c, c->response == NULL && !c->streamed);
  }
  if (c->httpd->engine)
    lbox_engine_unpost(c->httpd->engine, &c->ready);
  conn_unref(c);
}
