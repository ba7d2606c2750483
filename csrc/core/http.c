/* The life of a request and what its owner may ask; transfer.c has what libcurl does with it. */
#include "core/http.h"
#include "core/http_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- how much may be unread ------------------------------------------------------------------ */

size_t lbox__unread_share(const struct lbox_engine *e)
{
  size_t share = LBOX__ALL_UNREAD / (e->streams ? e->streams : 1);
  return share < LBOX__MOST_UNREAD ? share : LBOX__MOST_UNREAD;
}

size_t lbox__unread_limit(const struct lbox_http *h)
{
  size_t share = lbox__unread_share(h->engine);
  size_t limit = h->window < share ? h->window : share;
  return limit > LBOX__LEAST_UNREAD ? limit : LBOX__LEAST_UNREAD;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void unlink_resume(struct lbox_http *h)
{
  if (!h->resuming)
    return;
  struct lbox_engine *e = h->engine;
  struct lbox_http *before = NULL;
  for (struct lbox_http *at = e->resume_head; at != h; at = at->next_resume)
    before = at;
  *(before ? &before->next_resume : &e->resume_head) = h->next_resume;
  if (e->resume_tail == h)
    e->resume_tail = before;
  h->resuming = false;
}

static void free_transfer(struct lbox_http *h)
{
  curl_easy_cleanup(h->easy);
  h->easy = NULL;
  curl_slist_free_all(h->headers);
  h->headers = NULL;
  free(h->body);
  h->body = NULL;
  if (h->multipart)
    lbox_multipart_close(h->multipart);
}

static bool has_sent(const struct lbox_http *h)
{
  long sent = 0;
  curl_easy_getinfo(h->easy, CURLINFO_REQUEST_SIZE, &sent);
  return sent > 0;
}

/* Ends the transfer, tells the reader and drops the engine's reference, which may be the last. */
static void finish(struct lbox_http *h)
{
  struct lbox_engine *e = h->engine;
  h->sent = has_sent(h);
  curl_multi_remove_handle(e->multi, h->easy);
  free_transfer(h);
  unlink_resume(h);
  *(h->prev ? &h->prev->next : &e->requests) = h->next;
  if (h->next)
    h->next->prev = h->prev;
  h->in_flight = false;
  e->streams -= h->stream;
  lbox_engine_post(e, &h->ready);
  lbox_http_unref(h);
}

static enum lbox_http_failure classify(const struct lbox_http *h, CURLcode code)
{
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST: /* also a socket's path that is too long */
    return h->local_socket ? LBOX_HTTP_CONNECT : LBOX_HTTP_RESOLVE;
  case CURLE_COULDNT_CONNECT:
  case CURLE_INTERFACE_FAILED:
    return LBOX_HTTP_CONNECT;
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_PROXY:
    return LBOX_HTTP_PROXY;
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CRL_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_INVALIDCERTSTATUS:
  case CURLE_SSL_ENGINE_NOTFOUND:
  case CURLE_SSL_ENGINE_SETFAILED:
  case CURLE_SSL_ENGINE_INITFAILED:
  case CURLE_SSL_CLIENTCERT:
    return LBOX_HTTP_TLS;
  case CURLE_SEND_ERROR:
    return LBOX_HTTP_SEND;
  case CURLE_SEND_FAIL_REWIND:
    return LBOX_HTTP_REWIND;
  case CURLE_GOT_NOTHING:
  case CURLE_RECV_ERROR:
  case CURLE_HTTP2:
  case CURLE_HTTP2_STREAM:
    return LBOX_HTTP_RECV;
  case CURLE_PARTIAL_FILE:
    return LBOX_HTTP_PARTIAL;
  default:
    return LBOX_HTTP_OTHER;
  }
}

static enum lbox_http_failure diagnose(const struct lbox_http *h, CURLcode code)
{
  long proxy_status = 0;
  if (h->headers_complete) /* whatever breaks an answer that has begun leaves a cut body */
    return LBOX_HTTP_PARTIAL;
  curl_easy_getinfo(h->easy, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
  return proxy_status >= 300 ? LBOX_HTTP_PROXY : classify(h, code);
}

/* libcurl says only that it could not connect; the system said why. */
static void explain_connect(struct lbox_http *h)
{
  long number = 0;
  if (h->socket_errno == EMFILE) {
    h->reason = "this process has too many files open (ulimit -n says how many it may)";
    return;
  }
  curl_easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &number);
  if (number != 0)
    snprintf(h->curl_reason, sizeof h->curl_reason, "%s", strerror((int)number));
}

void lbox__http_complete(struct lbox_http *h, CURLcode code)
{
  if (h->truncated)
    code = CURLE_OK;
  h->curl_code = code;
  if (code != CURLE_OK && h->failure == LBOX_HTTP_OK) {
    h->failure = diagnose(h, code);
    if (code == CURLE_COULDNT_CONNECT) {
      explain_connect(h);
    } else if (code == CURLE_OUT_OF_MEMORY && !h->headers_complete) { /* libcurl's word for both */
      h->failure = LBOX_HTTP_TOO_LARGE;
      h->reason = "its headers are too long, or memory ran out";
    }
  } else if (code == CURLE_OK && !h->headers_complete) { /* libcurl takes that for an answer */
    h->failure = LBOX_HTTP_RECV;
    h->reason = "the connection closed within the headers of the answer";
  }
  finish(h);
}

void lbox__http_abort(struct lbox_http *h, enum lbox_http_failure failure, const char *reason)
{
  h->failure = failure;
  h->reason = reason;
  finish(h);
}

void lbox_http_cancel(struct lbox_http *h)
{
  if (!h->in_flight || lbox_engine_forked(h->engine))
    return;
  struct lbox__pipe_guard guard;
  lbox__pipe_block(&guard); /* the last words of TLS and HTTP/2 are written here */
  lbox__http_abort(h, LBOX_HTTP_CANCELLED, "cancelled");
  lbox__pipe_restore(&guard);
}

void lbox_http_unref(struct lbox_http *h)
{
  if (!h || --h->refs > 0)
    return;
  lbox_engine_unpost(h->engine, &h->ready);
  lbox_multipart_free(h->multipart);
  lbox_buf_free(&h->answer);
  lbox_buf_free(&h->output);
  lbox_buf_free(&h->header_text);
  lbox_engine_unref(h->engine);
  free(h);
}

/* --- the beginning ---------------------------------------------------------------------------- */

static bool may_start(struct lbox_engine *e, struct lbox_err *err)
{
  if (lbox_engine_forked(e))
    *err = (struct lbox_err){.rc = LBOX_EFORK, .text = "the engine was made in another process"};
  else if (e->closed)
    *err = (struct lbox_err){.rc = LBOX_ECLOSED, .text = "the engine is closed"};
  else if (!e->multi)
    lbox__err_memory(err);
  else
    return true;
  return false;
}

static void say(struct lbox_err *err, int code, const char *text)
{
  *err = (struct lbox_err){.rc = LBOX_ECURL, .code = code};
  snprintf(err->text, sizeof err->text, "%s", text);
}

static bool prepare(struct lbox_http *h, const struct lbox_http_options *o, struct lbox_err *err)
{
  size_t len = o->body ? o->body_len : 0;
  h->body = malloc(len + 1);
  if (o->parts)
    h->multipart = lbox_multipart_new(o->parts, o->n_parts, NULL);
  h->easy = curl_easy_init();
  if (!h->body || !h->easy || (o->parts && !h->multipart)) {
    lbox__err_memory(err);
    return false;
  }
  if (len)
    memcpy(h->body, o->body, len);
  h->body_len = h->multipart ? lbox_multipart_length(h->multipart) : len;
  CURLcode code = lbox__transfer_setup(h, o);
  if (code != CURLE_OK) {
    say(err, (int)code, curl_easy_strerror(code));
    return false;
  }
  CURLMcode added = curl_multi_add_handle(h->engine->multi, h->easy);
  if (added != CURLM_OK) {
    say(err, (int)added, curl_multi_strerror(added));
    return false;
  }
  return true;
}

struct lbox_http *lbox_http_start(struct lbox_engine *e, const struct lbox_http_options *o,
                                  struct lbox_err *err)
{
  if (!may_start(e, err))
    return NULL;
  struct lbox_http *h = calloc(1, sizeof *h);
  if (!h) {
    lbox__err_memory(err);
    return NULL;
  }
  h->refs = 1;
  h->engine = lbox_engine_ref(e);
  h->upgrade = o->upgrade;
  h->stream = o->stream || o->upgrade;
  h->local_socket = o->unix_socket != NULL;
  h->window = LBOX__LEAST_UNREAD;
  h->ready.id = lbox_engine_next_id(e);
  lbox_buf_init(&h->answer, o->max_body);
  lbox_buf_init(&h->output, LBOX_HTTP_MAX_UNSENT);
  lbox_buf_init(&h->header_text, LBOX__MAX_HEADERS);
  if (!prepare(h, o, err)) {
    free_transfer(h);
    lbox_http_unref(h);
    return NULL;
  }
  h->refs++;
  h->in_flight = true;
  e->streams += h->stream;
  h->next = e->requests;
  if (h->next)
    h->next->prev = h;
  e->requests = h;
  if (h->multipart && lbox_multipart_error(h->multipart))
    lbox__http_abort(h, LBOX_HTTP_FILE, lbox_multipart_error(h->multipart));
  return h;
}

/* --- what the owner asks ---------------------------------------------------------------------- */

uint64_t lbox_http_id(const struct lbox_http *h)
{
  return h->ready.id;
}

int lbox_http_status(const struct lbox_http *h)
{
  return h->headers_complete ? h->status : 0;
}

const char *lbox_http_header(const struct lbox_http *h, const char *name)
{
  if (!h->header_text.base)
    return NULL;
  const char *found = NULL;
  size_t len = strlen(name);
  const char *at = h->header_text.base + h->header_text.start;
  const char *end = h->header_text.base + h->header_text.end;
  for (; at < end; at += strlen(at) + 1) {
    if (strncasecmp(at, name, len) == 0 && at[len] == ':')
      found = at + len + 1 + strspn(at + len + 1, " \t");
  }
  return found;
}

bool lbox_http_done(const struct lbox_http *h)
{
  return !h->in_flight;
}

enum lbox_http_failure lbox_http_failure(const struct lbox_http *h)
{
  return h->failure;
}

const char *lbox_http_failure_name(enum lbox_http_failure failure)
{
  static const char *const names[] = {"ok",        "resolve", "connect", "tls",     "proxy",
                                      "send",      "recv",    "rewind",  "partial", "too_large",
                                      "cancelled", "file",    "other"};
  return names[failure];
}

const char *lbox_http_failure_text(const struct lbox_http *h)
{
  if (h->reason)
    return h->reason;
  return h->curl_reason[0] ? h->curl_reason : curl_easy_strerror(h->curl_code);
}

int lbox_http_curl_code(const struct lbox_http *h)
{
  return (int)h->curl_code;
}

bool lbox_http_was_sent(const struct lbox_http *h)
{
  return h->in_flight ? has_sent(h) : h->sent;
}

void lbox__http_resume(struct lbox_http *h)
{
  struct lbox_engine *e = h->engine;
  if (h->resuming)
    return;
  h->resuming = true;
  h->next_resume = NULL;
  *(e->resume_head ? &e->resume_tail->next_resume : &e->resume_head) = h;
  e->resume_tail = h;
  lbox__engine_changed(e);
}

bool lbox_http_write(struct lbox_http *h, const void *bytes, size_t n)
{
  if (!h->in_flight || !h->upgrade || !lbox_buf_append(&h->output, bytes, n))
    return false;
  if (h->send_paused && n > 0)
    lbox__http_resume(h);
  return true;
}

size_t lbox_http_unsent(const struct lbox_http *h)
{
  return h->in_flight ? lbox_buf_len(&h->output) : 0;
}

uint64_t lbox_http_body_sent(const struct lbox_http *h)
{
  return h->body_off;
}

uint64_t lbox_http_body_size(const struct lbox_http *h)
{
  return h->body_len;
}

bool lbox_http_streaming(const struct lbox_http *h)
{
  return h->stream && h->headers_complete && h->status < 300;
}

struct lbox_buf *lbox_http_body(struct lbox_http *h)
{
  return &h->answer;
}

void lbox_http_consumed(struct lbox_http *h, bool hungry)
{
  size_t len = lbox_buf_len(&h->answer);
  h->hungry = hungry;
  h->asked_at = hungry ? len : 0;
  if (!h->paused || h->caught_up || !h->in_flight || (!hungry && len > lbox__unread_limit(h) / 4))
    return;
  if (h->window < LBOX__MOST_UNREAD)
    h->window *= 2;
  h->caught_up = true;
  lbox__http_resume(h);
}
