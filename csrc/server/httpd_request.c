/*
** Requests and their answers: libmicrohttpd's callbacks on one side, what Lua asks for on the
** other.
**
** libmicrohttpd reads requests leniently. What could be read two ways (both lengths, repeated or
** odd framing headers, names with blanks) is refused here, and so is what is larger than the
** limits.
*/
#include "httpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <nettle/memops.h>

enum {
  MAX_METHOD = 16,
  MAX_HEAD = 64 * 1024,             /* more than fits into a connection's memory */
  MAX_DISCARD = 256 * 1024 * 1024,  /* of a refused body, read so that the client gets the answer */
  MAX_UNSENT = 1024 * 1024 * 1024,  /* of one answer */
  INLINE_ANSWER = LBOX_HTTPD_BLOCK, /* longer ones go out in blocks whose progress is seen */
  STREAM_BLOCK = 16 * 1024,
  BODY_PART = 256 * 1024,    /* with so much of its body a request is handed over */
  BODY_WINDOW = 1024 * 1024, /* at most so much waits to be taken, and a block */
  MAX_BLOCK = 64 * 1024      /* more than fits into a connection's memory */
};

/* --- life ------------------------------------------------------------------------------------- */

void lbox__request_free_body(struct httpd_request *r)
{
  lbox_buf_free(&r->body);
  r->server->buffered -= r->reserved;
  r->reserved = 0;
}

static void free_if_unused(struct httpd_request *r)
{
  struct httpd *h = r->server;
  if (r->mhd || r->held)
    return;
  lbox_engine_unpost(h->engine, &r->ready);
  lbox__request_free_body(r);
  lbox_buf_free(&r->out);
  lbox_buf_free(&r->head);
  free(r);
  lbox__httpd_unref(h);
}

static bool append_text(struct lbox_buf *b, const char *text, size_t n)
{
  return lbox_buf_append(b, text, n) && lbox_buf_append(b, "", 1);
}

/* The first callback of a request: what it returns is libmicrohttpd's argument in the others. */
void *lbox__request_uri(void *server, const char *uri, struct MHD_Connection *mhd)
{
  struct httpd *h = server;
  struct httpd_peer *p = lbox__peer_of(mhd);
  struct httpd_request *r = p && !h->stopping ? calloc(1, sizeof *r) : NULL;
  if (!r)
    return NULL;
  lbox_buf_init(&r->head, MAX_HEAD);
  if (!append_text(&r->head, uri, strlen(uri))) {
    free(r);
    return NULL;
  }
  lbox_buf_init(&r->body, BODY_WINDOW + MAX_BLOCK);
  lbox_buf_init(&r->out, MAX_UNSENT);
  r->server = h;
  h->refs++;
  h->open_requests++;
  r->mhd = mhd;
  r->peer = p;
  p->request = r;
  r->address = p->address;
  r->ready.id = lbox_engine_next_id(h->engine);
  return r;
}

void lbox__request_completed(void *server, struct MHD_Connection *mhd, void **request,
                             enum MHD_RequestTerminationCode code)
{
  struct httpd *h = server;
  struct httpd_request *r = *request;
  (void)mhd;
  *request = NULL;
  if (!r)
    return;
  lbox__peer_enter(r->peer, PHASE_HEAD);
  r->peer->request = NULL;
  r->peer = NULL;
  r->mhd = NULL;
  r->suspended = false;
  if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK)
    r->gone = true;
  if (r->early)
    MHD_destroy_response(r->early);
  r->early = NULL;
  lbox_buf_free(&r->out);
  if (r->held)
    lbox_engine_post(h->engine, &r->ready);
  h->open_requests--;
  free_if_unused(r);
}

/* libmicrohttpd does not survive a second time, and after the first it still hands over further
   chunks of a body that it has read already. */
static void suspend(struct httpd_request *r)
{
  if (r->suspended)
    return;
  r->suspended = true;
  MHD_suspend_connection(r->mhd);
}

static void resume(struct httpd_request *r)
{
  if (!r->suspended)
    return;
  r->suspended = false;
  if (!r->whole)
    lbox__peer_enter(r->peer, PHASE_BODY);
  else if (r->answered)
    lbox__peer_enter(r->peer, PHASE_ANSWER);
  MHD_resume_connection(r->mhd);
}

/* --- the head --------------------------------------------------------------------------------- */

/* Answers from inside a callback; the connection is closed after it. */
static enum MHD_Result refuse(struct httpd_request *r, unsigned status, const char *json)
{
  struct MHD_Response *response = MHD_create_response_from_buffer(
      strlen(json), (void *)(uintptr_t)json, MHD_RESPMEM_PERSISTENT);
  if (!response)
    return MHD_NO;
  enum MHD_Result result = MHD_add_response_header(response, "Content-Type", "application/json");
  if (result == MHD_YES)
    result = MHD_add_response_header(response, "Connection", "close");
  if (result == MHD_YES && status == MHD_HTTP_SERVICE_UNAVAILABLE)
    result = MHD_add_response_header(response, "Retry-After", "1");
  if (result == MHD_YES)
    result = MHD_queue_response(r->mhd, status, response);
  MHD_destroy_response(response);
  r->answered = true;
  lbox__peer_enter(r->peer, PHASE_ANSWER);
  return result;
}

static enum MHD_Result refuse_body(struct httpd_request *r)
{
  return r->refusal == MHD_HTTP_CONTENT_TOO_LARGE
             ? refuse(r, r->refusal, "{\"error\":\"the request body is too large\"}")
             : refuse(r, r->refusal, "{\"error\":\"too many request bodies at once\"}");
}

static bool is_token(const char *text, size_t n)
{
  static const char others[] = "!#$%&'*+-.^_`|~";
  for (size_t i = 0; i < n; i++) {
    char c = text[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && (c == 0 || !strchr(others, c)))
      return false;
  }
  return n > 0;
}

/* No control characters: nothing below `first`, which is ' ' (then tabs are text too) or '!'. */
static bool is_printable(const char *text, size_t n, unsigned char first)
{
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)text[i];
    if ((c < first && !(c == '\t' && first == ' ')) || c == 0x7f)
      return false;
  }
  return true;
}

struct head_reader {
  struct httpd_request *request;
  const char *length, *coding; /* borrowed */
  int lengths, codings, hosts;
  bool bad;
};

static enum MHD_Result on_header(void *ud, enum MHD_ValueKind kind, const char *name,
                                 size_t name_len, const char *value, size_t value_len)
{
  struct head_reader *reader = ud;
  struct lbox_buf *head = &reader->request->head;
  (void)kind;
  if (!value)
    value = "";
  if (strcasecmp(name, "Content-Length") == 0) {
    reader->lengths++;
    reader->length = value;
  } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
    reader->codings++;
    reader->coding = value;
  } else if (strcasecmp(name, "Host") == 0) {
    reader->hosts++;
  }
  reader->bad = reader->bad || !is_token(name, name_len) || !is_printable(value, value_len, ' ') ||
                !append_text(head, name, name_len) || !append_text(head, value, value_len);
  return reader->bad ? MHD_NO : MHD_YES;
}

/* Reserves memory for a body of that length, as far as it has to be held at once. False: the
   request is refused for it. */
static bool reserve(struct httpd_request *r, uint64_t length)
{
  struct httpd *h = r->server;
  size_t n = length > BODY_WINDOW + MAX_BLOCK ? BODY_WINDOW + MAX_BLOCK : (size_t)length;
  if (length > h->limits.max_body)
    r->refusal = MHD_HTTP_CONTENT_TOO_LARGE;
  else if (n > r->reserved && n - r->reserved > h->limits.max_buffered - h->buffered)
    r->refusal = MHD_HTTP_SERVICE_UNAVAILABLE;
  if (r->refusal)
    return false;
  if (n > r->reserved) {
    h->buffered += n - r->reserved;
    r->reserved = n;
  }
  return true;
}

static bool has_key(const struct httpd_request *r)
{
  const char *key = r->server->limits.key, *given = lbox__request_header(r, "X-Box-Api-Key");
  return !key || (given && strlen(given) == strlen(key) && memeql_sec(given, key, strlen(key)));
}

/* Called when the head is complete: the request is refused, or its body is read. */
static enum MHD_Result begin(struct httpd_request *r, const char *method, const char *version)
{
  struct head_reader reader = {.request = r};
  size_t target_len = lbox_buf_len(&r->head) - 1, method_len = strlen(method);
  r->begun = true;
  r->method_at = lbox_buf_len(&r->head);
  if (method_len > MAX_METHOD || !is_token(method, method_len) ||
      !append_text(&r->head, method, method_len))
    return refuse(r, 400, "{\"error\":\"bad method\"}");
  r->headers_at = lbox_buf_len(&r->head);
  if (target_len == 0 || !is_printable(lbox_buf_data(&r->head), target_len, '!'))
    return refuse(r, 400, "{\"error\":\"bad request target\"}");
  MHD_get_connection_values_n(r->mhd, MHD_HEADER_KIND, on_header, &reader);
  if (reader.bad)
    return refuse(r, 400, "{\"error\":\"bad request header\"}");
  bool is_1_0 = strcmp(version, "HTTP/1.0") == 0;
  if (reader.hosts > 1 || (reader.hosts == 0 && !is_1_0))
    return refuse(r, 400, "{\"error\":\"one Host header expected\"}");
  if (reader.lengths + reader.codings > 1)
    return refuse(r, 400, "{\"error\":\"more than one length of the body\"}");
  if (reader.coding && (is_1_0 || strcasecmp(reader.coding, "chunked") != 0))
    return refuse(r, 400, "{\"error\":\"unknown Transfer-Encoding\"}");
  /* libmicrohttpd has checked that it is a number. */
  unsigned long long length = reader.length ? strtoull(reader.length, NULL, 10) : 0;
  /* A client that is still sending would lose the answer in the reset that follows it. */
  r->stranger = !has_key(r);
  r->peer->known = r->peer->known || !r->stranger;
  bool may_send = r->stranger || reserve(r, length);
  if (!may_send && length > MAX_DISCARD)
    return refuse_body(r);
  lbox__peer_enter(r->peer, PHASE_BODY);
  return MHD_YES;
}

/* --- the body --------------------------------------------------------------------------------- */

/* Lua is to have the request. False: there are too many. */
static bool hand_over(struct httpd_request *r)
{
  struct httpd *h = r->server;
  if (h->waiting_count >= h->limits.waiting)
    return false;
  r->queued = r->held = true;
  *(h->waiting_tail ? &h->waiting_tail->next_waiting : &h->waiting) = r;
  h->waiting_tail = r;
  h->waiting_count++;
  lbox_engine_post(h->engine, &h->ready);
  return true;
}

/* Holds the client up until Lua has taken what there is, or answered. */
static void wait_for_lua(struct httpd_request *r)
{
  lbox__peer_enter(r->peer, PHASE_HANDLER);
  suspend(r);
}

static enum MHD_Result receive(struct httpd_request *r, const char *bytes, size_t n)
{
  bool wanted = !r->stranger && !r->refusal && !r->answered && !r->dropped;
  lbox__peer_moved(r->peer, n);
  r->received += n;
  if (wanted && !(reserve(r, r->received) && lbox_buf_append(&r->body, bytes, n)) && !r->refusal)
    r->refusal = MHD_HTTP_SERVICE_UNAVAILABLE;
  size_t len = lbox_buf_len(&r->body);
  if (wanted && !r->refusal && !r->queued && len >= BODY_PART && !hand_over(r))
    r->refusal = MHD_HTTP_SERVICE_UNAVAILABLE;
  if (r->queued)
    lbox_engine_post(r->server->engine, &r->ready);
  if (wanted && !r->refusal) {
    if (len >= BODY_WINDOW)
      wait_for_lua(r);
    return MHD_YES;
  }
  /* libmicrohttpd can answer only after the body: it is read to its end, within reason. */
  lbox__request_free_body(r);
  r->discarded += n;
  return r->discarded <= MAX_DISCARD ? MHD_YES : MHD_NO;
}

void lbox__request_took(struct httpd_request *r)
{
  if (r->whole)
    lbox__request_free_body(r);
  else if (r->suspended) {
    resume(r);
    lbox__httpd_flush(r->server);
  }
}

static enum MHD_Result queue_early(struct httpd_request *r)
{
  enum MHD_Result result = MHD_queue_response(r->mhd, r->early_status, r->early);
  MHD_destroy_response(r->early);
  r->early = NULL;
  lbox__peer_enter(r->peer, PHASE_ANSWER);
  return result;
}

/* The end of the body is here. */
static enum MHD_Result end_body(struct httpd_request *r)
{
  r->whole = true;
  if (r->early)
    return queue_early(r);
  if (r->refusal && !r->queued)
    return refuse_body(r);
  if (r->dropped)
    return refuse(r, 500, "{\"error\":\"the server gave no answer\"}");
  if (r->queued)
    lbox_engine_post(r->server->engine, &r->ready);
  else if (!hand_over(r))
    return refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "{\"error\":\"too many requests at once\"}");
  wait_for_lua(r);
  return MHD_YES;
}

enum MHD_Result lbox__request_handle(void *server, struct MHD_Connection *mhd, const char *url,
                                     const char *method, const char *version, const char *upload,
                                     size_t *upload_len, void **request)
{
  const struct httpd *h = server;
  struct httpd_request *r = *request;
  (void)mhd;
  (void)url;
  if (!r || h->stopping)
    return MHD_NO;
  if (!r->begun)
    return begin(r, method, version);
  if (*upload_len > 0) {
    size_t n = *upload_len;
    *upload_len = 0;
    return receive(r, upload, n);
  }
  if (!r->whole)
    return end_body(r);
  /* It was resumed without an answer. */
  return r->dropped ? refuse(r, 500, "{\"error\":\"the server gave no answer\"}") : MHD_NO;
}

const char *lbox__request_header(const struct httpd_request *r, const char *name)
{
  const char *at = r->head.base + r->head.start + r->headers_at;
  const char *end = r->head.base + r->head.end;
  while (at < end) {
    const char *value = at + strlen(at) + 1;
    if (strcasecmp(at, name) == 0)
      return value;
    at = value + strlen(value) + 1;
  }
  return NULL;
}

/* --- answers ---------------------------------------------------------------------------------- */

/* libmicrohttpd wants bytes of the answer: it has sent all that it got before. */
static ssize_t on_stream(void *ud, uint64_t position, char *out, size_t max)
{
  struct httpd_request *r = ud;
  size_t len = lbox_buf_len(&r->out);
  (void)position;
  if (r->aborted || (r->gone && r->streamed && !r->finished))
    return MHD_CONTENT_READER_END_WITH_ERROR;
  if (len == 0) {
    if (r->finished)
      return MHD_CONTENT_READER_END_OF_STREAM;
    suspend(r);
    return 0;
  }
  if (len > max)
    len = max;
  memcpy(out, lbox_buf_data(&r->out), len);
  lbox_buf_consume(&r->out, len);
  lbox__peer_moved(r->peer, len);
  if (r->wants_room && lbox_buf_len(&r->out) < LBOX_HTTPD_LOW_WATER) {
    r->wants_room = false;
    lbox_engine_post(r->server->engine, &r->ready);
  }
  return (ssize_t)len;
}

struct MHD_Response *lbox__request_response(struct httpd_request *r, const char *bytes, size_t n)
{
  r->streamed = !bytes;
  if (!bytes && strcmp(r->head.base + r->head.start + r->method_at, "HEAD") == 0)
    return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
  if (!bytes)
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_stream, r, NULL);
  if (n <= INLINE_ANSWER)
    return MHD_create_response_from_buffer(n, (void *)(uintptr_t)bytes, MHD_RESPMEM_MUST_COPY);
  if (!lbox_buf_append(&r->out, bytes, n))
    return NULL;
  r->finished = true;
  return MHD_create_response_from_callback(n, STREAM_BLOCK, on_stream, r, NULL);
}

/* Closes an upgraded connection. What holds the request is told by libmicrohttpd. */
static void end_upgrade(struct httpd_request *r)
{
  struct MHD_UpgradeResponseHandle *handle = r->upgrade;
  r->upgrade = NULL;
  if (handle)
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

/* The head of the answer is sent, and the connection no longer HTTP. `extra` came behind the
 * request. */
static void on_upgrade(void *ud, struct MHD_Connection *mhd, void *request, const char *extra,
                       size_t extra_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
  struct httpd_request *r = ud;
  (void)mhd;
  (void)request;
  r->upgrade = handle;
  r->upgraded_fd = fd;
  lbox__peer_enter(r->peer, PHASE_HANDLER);
  if (!r->held || !lbox_buf_append(&r->body, extra, extra_len))
    end_upgrade(r);
  else
    lbox_engine_post(r->server->engine, &r->ready);
}

struct MHD_Response *lbox__request_upgrade_response(struct httpd_request *r)
{
  return MHD_create_response_for_upgrade(on_upgrade, r);
}

void lbox__request_unanswer(struct httpd_request *r)
{
  lbox_buf_free(&r->out);
  r->streamed = r->finished = false;
}

void lbox__request_answer(struct httpd_request *r, unsigned status, struct MHD_Response *response)
{
  if (!r->mhd || r->answered) {
    MHD_destroy_response(response);
    return;
  }
  if (r->whole) {
    r->answered = MHD_queue_response(r->mhd, status, response) == MHD_YES;
    MHD_destroy_response(response);
  } else { /* the rest of the body is thrown away */
    r->answered = true;
    r->early = response;
    r->early_status = status;
    lbox__request_free_body(r);
  }
  resume(r);
  lbox__httpd_flush(r->server);
}

bool lbox__request_write(struct httpd_request *r, const char *bytes, size_t n)
{
  if (r->gone || !r->mhd)
    return true;
  if (!lbox_buf_append(&r->out, bytes, n))
    return false;
  r->wants_room = lbox_buf_len(&r->out) >= LBOX_HTTPD_LOW_WATER;
  if (r->suspended) {
    resume(r);
    lbox__httpd_flush(r->server);
  }
  return true;
}

void lbox__request_end(struct httpd_request *r, bool cleanly)
{
  end_upgrade(r);
  if (cleanly)
    r->finished = true;
  else if (!r->finished)
    r->aborted = true;
  if (r->suspended) {
    resume(r);
    lbox__httpd_flush(r->server);
  }
}

void lbox__request_hangup(struct httpd_request *r)
{
  r->gone = true;
  if (r->held)
    lbox_engine_post(r->server->engine, &r->ready);
  resume(r); /* libmicrohttpd closes the connection, whatever Lua still does with the request */
}

void lbox__request_drop(struct httpd_request *r)
{
  struct httpd *h = r->server;
  r->held = false;
  lbox_engine_unpost(h->engine, &r->ready);
  lbox__request_free_body(r);
  if (!r->answered)
    r->dropped = true;
  else if (r->streamed && !r->finished)
    r->aborted = true;
  bool upgraded = r->upgrade;
  end_upgrade(r);
  if (r->suspended || upgraded) {
    resume(r);
    /* Not at once: this is also what the garbage collector calls. */
    h->dirty = true;
    lbox_engine_post(h->engine, &h->ready);
  }
  free_if_unused(r);
}
