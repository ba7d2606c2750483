#include "core/http.h"
#include "core/engine_internal.h"
#include "core/util.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

enum {
  HIGH_WATER = 256 * 1024, /* an unread stream stops here */
  LOW_WATER = 64 * 1024,   /* and goes on when its reader is down to this */
  MAX_HEADERS = 64 * 1024,
  MAX_ERROR_BODY = 64 * 1024, /* of an answer that is not 2xx to a streaming request */
  POST_MAX_IDLE_S = 2         /* a POST does not reuse a connection that idled longer */
};

struct lbox_http {
  int refs;
  struct lbox_engine *engine; /* a reference, dropped with the request */
  CURL *easy;                 /* owned; NULL once the transfer is over */
  struct curl_slist *headers;
  struct lbox_ready ready;
  struct lbox_http *prev, *next; /* in engine->requests while in flight */
  struct lbox_http *next_resume;
  bool in_flight, paused, resuming, hungry;

  char *body; /* owned copy of what is sent */
  size_t body_len, body_off;

  bool stream;
  int status;
  bool headers_complete;
  struct lbox_buf header_text; /* "Name: value\0" of the last answer, one after the other */
  struct lbox_buf answer;

  enum lbox_http_failure failure;
  CURLcode curl_code;
  bool sent;
  char error_text[CURL_ERROR_SIZE];
};

/* --- what libcurl calls: C memory only ------------------------------------------------------- */

static size_t on_body(char *bytes, size_t size, size_t n, void *ud)
{
  struct lbox_http *h = ud;
  (void)size;
  size_t len = lbox_buf_len(&h->answer);
  if (lbox_http_streaming(h) && !h->hungry && len >= HIGH_WATER) {
    h->paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (!lbox_buf_append(&h->answer, bytes, n)) {
    h->failure = LBOX_HTTP_TOO_LARGE;
    snprintf(h->error_text, sizeof h->error_text, "the answer is larger than %zu bytes",
             h->answer.max);
    return 0;
  }
  h->hungry = false;
  lbox_engine_post(h->engine, &h->ready);
  return n;
}

static void headers_done(struct lbox_http *h)
{
  long status = 0;
  curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
  if (status < 200)
    return;
  h->status = (int)status;
  h->headers_complete = true;
  if (h->stream && !lbox_http_streaming(h))
    h->answer.max = MAX_ERROR_BODY;
  lbox_engine_post(h->engine, &h->ready);
}

static size_t on_header(char *line, size_t size, size_t n, void *ud)
{
  struct lbox_http *h = ud;
  (void)size;
  size_t len = n;
  while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n'))
    len--;
  if (h->headers_complete) /* trailers */
    return n;
  if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
    lbox_buf_consume(&h->header_text, lbox_buf_len(&h->header_text));
    return n;
  }
  if (len == 0) {
    headers_done(h);
    return n;
  }
  if (memchr(line, 0, len) || !lbox_buf_append(&h->header_text, line, len) ||
      !lbox_buf_append(&h->header_text, "", 1)) {
    h->failure = LBOX_HTTP_TOO_LARGE;
    snprintf(h->error_text, sizeof h->error_text, "the answer's headers are larger than %d bytes",
             MAX_HEADERS);
    return 0;
  }
  return n;
}

static size_t on_send(char *out, size_t size, size_t n, void *ud)
{
  struct lbox_http *h = ud;
  size_t left = h->body_len - h->body_off;
  size_t len = size * n < left ? size * n : left;
  memcpy(out, h->body + h->body_off, len);
  h->body_off += len;
  return len;
}

/* Refuses to rewind once a byte left: that is how libcurl would repeat a POST. */
static int on_seek(void *ud, curl_off_t offset, int origin)
{
  const struct lbox_http *h = ud;
  bool untouched = h->body_off == 0 && offset == 0 && origin == SEEK_SET;
  return untouched ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
}

/* libcurl 7.88 opens sockets that spawned programs would inherit. */
static int on_socket_made(void *ud, curl_socket_t fd, curlsocktype purpose)
{
  (void)ud;
  (void)purpose;
  return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? CURL_SOCKOPT_OK : CURL_SOCKOPT_ERROR;
}

struct curl_socket {
  struct lbox_engine *engine;
  curl_socket_t fd;
  struct lbox_watch *watch;
};

static void on_curl_socket(void *ud, uint32_t events)
{
  const struct curl_socket *s = ud;
  int mask = ((events & EPOLLIN) ? CURL_CSELECT_IN : 0) | ((events & EPOLLOUT) ? CURL_CSELECT_OUT : 0) |
             ((events & (EPOLLERR | EPOLLHUP)) ? CURL_CSELECT_ERR : 0);
  int running;
  curl_multi_socket_action(s->engine->multi, s->fd, mask, &running);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ud, void *socket_ud)
{
  struct lbox_engine *e = ud;
  struct curl_socket *s = socket_ud;
  struct lbox_err err;
  (void)easy;
  if (what == CURL_POLL_REMOVE) {
    if (s) {
      lbox_watch_close(s->watch);
      free(s);
    }
    curl_multi_assign(e->multi, fd, NULL);
    return 0;
  }
  uint32_t events = ((what & CURL_POLL_IN) ? EPOLLIN : 0u) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0u);
  if (s) {
    lbox_watch_set(s->watch, events);
    return 0;
  }
  s = calloc(1, sizeof *s);
  if (!s)
    return -1;
  *s = (struct curl_socket){.engine = e, .fd = fd};
  s->watch = lbox_engine_watch(e, fd, events, on_curl_socket, s, &err);
  if (!s->watch) {
    free(s);
    return -1;
  }
  curl_multi_assign(e->multi, fd, s);
  return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ud)
{
  (void)multi;
  lbox__engine_curl_timer(ud, timeout_ms < 0 ? -1 : lbox_now_us() + (int64_t)timeout_ms * 1000);
  return 0;
}

/* --- the life of a request -------------------------------------------------------------------- */

static void unlink_resume(struct lbox_http *h)
{
  if (!h->resuming)
    return;
  struct lbox_http **at = &h->engine->resume_head;
  while (*at != h)
    at = &(*at)->next_resume;
  *at = h->next_resume;
  h->resuming = false;
}

/* Ends the transfer, drops the engine's reference and tells the reader. */
static void finish(struct lbox_http *h)
{
  struct lbox_engine *e = h->engine;
  if (h->easy) {
    long request_size = 0;
    curl_easy_getinfo(h->easy, CURLINFO_REQUEST_SIZE, &request_size);
    h->sent = request_size > 0;
    curl_multi_remove_handle(e->multi, h->easy);
    curl_easy_cleanup(h->easy);
    h->easy = NULL;
  }
  curl_slist_free_all(h->headers);
  h->headers = NULL;
  free(h->body);
  h->body = NULL;
  if (!h->in_flight)
    return;
  h->in_flight = false;
  unlink_resume(h);
  *(h->prev ? &h->prev->next : &e->requests) = h->next;
  if (h->next)
    h->next->prev = h->prev;
  lbox_engine_post(e, &h->ready);
  lbox_http_unref(h);
}

static enum lbox_http_failure classify(CURLcode code)
{
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST:
    return LBOX_HTTP_RESOLVE;
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
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_ENGINE_INITFAILED:
    return LBOX_HTTP_TLS;
  case CURLE_SEND_ERROR:
    return LBOX_HTTP_SEND;
  case CURLE_SEND_FAIL_REWIND:
    return LBOX_HTTP_REWIND;
  case CURLE_GOT_NOTHING:
  case CURLE_RECV_ERROR:
    return LBOX_HTTP_RECV;
  case CURLE_PARTIAL_FILE:
  case CURLE_HTTP2:
  case CURLE_HTTP2_STREAM:
    return LBOX_HTTP_PARTIAL;
  default:
    return LBOX_HTTP_OTHER;
  }
}

static void complete(struct lbox_http *h, CURLcode code)
{
  h->curl_code = code;
  if (code != CURLE_OK && h->failure == LBOX_HTTP_OK) {
    h->failure = classify(code);
    /* Once the answer has begun, whatever breaks it leaves a cut body. */
    if (h->headers_complete &&
        (h->failure == LBOX_HTTP_RECV || h->failure == LBOX_HTTP_SEND || h->failure == LBOX_HTTP_OTHER))
      h->failure = LBOX_HTTP_PARTIAL;
    if (!h->error_text[0])
      snprintf(h->error_text, sizeof h->error_text, "%s", curl_easy_strerror(code));
  }
  finish(h);
}

static bool is_loopback(const char *url)
{
  const char *host = strstr(url, "://");
  host = host ? host + 3 : url;
  size_t n = strcspn(host, "/?#");
  const char *at = memchr(host, '@', n);
  if (at) {
    n -= (size_t)(at + 1 - host);
    host = at + 1;
  }
  if (n >= 5 && strncmp(host, "[::1]", 5) == 0)
    return true;
  n = strcspn(host, ":/?#");
  return (n == 9 && strncasecmp(host, "localhost", 9) == 0) || (n > 4 && strncmp(host, "127.", 4) == 0);
}

static void set_body(struct lbox_http *h, const struct lbox_http_options *o)
{
  CURL *c = h->easy;
  bool post = strcmp(o->method, "POST") == 0;
  if (post || o->body) {
    curl_easy_setopt(c, CURLOPT_POST, 1L);
    curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)h->body_len);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, on_send);
    curl_easy_setopt(c, CURLOPT_READDATA, h);
    curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(c, CURLOPT_SEEKDATA, h);
  }
  if (!post && strcmp(o->method, "GET") != 0)
    curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, o->method);
  if (post) {
    curl_easy_setopt(c, CURLOPT_MAXAGE_CONN, (long)POST_MAX_IDLE_S);
    if (h->body_len == 0)
      curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L);
  }
}

static bool add_header(struct lbox_http *h, const char *line)
{
  struct curl_slist *list = curl_slist_append(h->headers, line);
  if (list)
    h->headers = list;
  return list != NULL;
}

static bool set_headers(struct lbox_http *h, const struct lbox_http_options *o)
{
  bool typed = false;
  for (const char *const *line = o->headers; line && *line; line++) {
    typed = typed || strncasecmp(*line, "content-type:", 13) == 0;
    if (!add_header(h, *line))
      return false;
  }
  /* What libcurl adds of its own accord and no server of ours wants. */
  if (!add_header(h, "Expect:") || (!typed && !add_header(h, "Content-Type:")))
    return false;
  curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, h->headers);
  return true;
}

static void set_transport(struct lbox_http *h, const struct lbox_http_options *o)
{
  CURL *c = h->easy;
  curl_easy_setopt(c, CURLOPT_URL, o->url);
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_HTTP_VERSION,
                   o->stream ? (long)CURL_HTTP_VERSION_1_1 : (long)CURL_HTTP_VERSION_2TLS);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
  /* The caller's deadline decides; libcurl's own default would end a long wait before it. */
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)INT32_MAX);
  curl_easy_setopt(c, CURLOPT_SOCKOPTFUNCTION, on_socket_made);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->error_text);
  curl_easy_setopt(c, CURLOPT_PRIVATE, h);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
  curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
  if (o->unix_socket)
    curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
  if (o->unix_socket || is_loopback(o->url)) {
    curl_easy_setopt(c, CURLOPT_PROXY, "");
  } else {
    if (o->proxy)
      curl_easy_setopt(c, CURLOPT_PROXY, o->proxy);
    if (o->no_proxy)
      curl_easy_setopt(c, CURLOPT_NOPROXY, o->no_proxy);
  }
  if (o->ca_file)
    curl_easy_setopt(c, CURLOPT_CAINFO, o->ca_file);
}

struct lbox_http *lbox_http_start(struct lbox_engine *e, const struct lbox_http_options *o,
                                  struct lbox_err *err)
{
  *err = (struct lbox_err){.rc = LBOX_ENOMEM, .text = "not enough memory"};
  if (lbox_engine_forked(e)) {
    *err = (struct lbox_err){.rc = LBOX_EFORK, .text = "the engine was made in another process"};
    return NULL;
  }
  if (e->closed) {
    *err = (struct lbox_err){.rc = LBOX_ECLOSED, .text = "the engine is closed"};
    return NULL;
  }
  struct lbox_http *h = calloc(1, sizeof *h);
  if (!h)
    return NULL;
  h->refs = 1;
  h->engine = lbox_engine_ref(e);
  h->stream = o->stream;
  h->ready.id = lbox_engine_next_id(e);
  lbox_buf_init(&h->answer, o->max_body);
  lbox_buf_init(&h->header_text, MAX_HEADERS);
  h->body_len = o->body ? o->body_len : 0;
  h->body = malloc(h->body_len + 1);
  h->easy = curl_easy_init();
  if (!h->body || !h->easy)
    goto fail;
  if (h->body_len)
    memcpy(h->body, o->body, h->body_len);
  set_transport(h, o);
  set_body(h, o);
  if (!set_headers(h, o))
    goto fail;
  CURLMcode code = curl_multi_add_handle(e->multi, h->easy);
  if (code != CURLM_OK) {
    *err = (struct lbox_err){.rc = LBOX_ECURL, .code = (int)code};
    snprintf(err->text, sizeof err->text, "%s", curl_multi_strerror(code));
    goto fail;
  }
  h->refs++;
  h->in_flight = true;
  h->next = e->requests;
  if (h->next)
    h->next->prev = h;
  e->requests = h;
  return h;

fail:
  if (h->easy)
    curl_easy_cleanup(h->easy);
  h->easy = NULL;
  finish(h);
  lbox_http_unref(h);
  return NULL;
}

void lbox_http_unref(struct lbox_http *h)
{
  if (!h || --h->refs > 0)
    return;
  lbox_engine_unpost(h->engine, &h->ready);
  lbox_buf_free(&h->answer);
  lbox_buf_free(&h->header_text);
  lbox_engine_unref(h->engine);
  free(h);
}

void lbox_http_cancel(struct lbox_http *h)
{
  if (!h->in_flight || lbox_engine_forked(h->engine))
    return;
  h->failure = LBOX_HTTP_CANCELLED;
  snprintf(h->error_text, sizeof h->error_text, "cancelled");
  finish(h);
}

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
  const char *found = NULL;
  size_t len = strlen(name);
  const char *at = h->header_text.base + h->header_text.start;
  const char *end = h->header_text.base + h->header_text.end;
  for (; h->header_text.base && at < end; at += strlen(at) + 1) {
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
  static const char *const names[] = {"ok",     "resolve", "connect",   "tls",       "proxy", "send",
                                      "recv",   "rewind",  "partial",   "too_large", "cancelled",
                                      "other"};
  return names[failure];
}

const char *lbox_http_failure_text(const struct lbox_http *h)
{
  return h->error_text;
}

int lbox_http_curl_code(const struct lbox_http *h)
{
  return (int)h->curl_code;
}

bool lbox_http_was_sent(const struct lbox_http *h)
{
  return h->sent;
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
  h->hungry = hungry;
  if (!h->paused || h->resuming || !h->in_flight)
    return;
  if (!hungry && lbox_buf_len(&h->answer) > LOW_WATER)
    return;
  h->resuming = true;
  h->next_resume = h->engine->resume_head;
  h->engine->resume_head = h;
  lbox__engine_signal(h->engine);
}

/* --- the engine's side ------------------------------------------------------------------------ */

enum lbox_rc lbox__http_open(struct lbox_engine *e, struct lbox_err *err)
{
  const curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);
  if (version->version_num < 0x075700 || !(version->features & CURL_VERSION_ASYNCHDNS)) {
    *err = (struct lbox_err){.rc = LBOX_ECURL};
    snprintf(err->text, sizeof err->text,
             "libcurl 7.87 or newer with asynchronous name resolution is needed, this is %s",
             version->version);
    return err->rc;
  }
  e->multi = curl_multi_init();
  if (!e->multi) {
    *err = (struct lbox_err){.rc = LBOX_ENOMEM, .text = "not enough memory"};
    return err->rc;
  }
  curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e);
  curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e);
  return LBOX_OK;
}

void lbox__http_close(struct lbox_engine *e)
{
  while (e->requests)
    lbox_http_cancel(e->requests);
  if (e->multi)
    curl_multi_cleanup(e->multi);
  e->multi = NULL;
}

void lbox__http_timeout(struct lbox_engine *e)
{
  int running;
  curl_multi_socket_action(e->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

/* Transfers whose reader has caught up go on. Unpausing may call on_body, and so pause again. */
static void resume_paused(struct lbox_engine *e)
{
  struct lbox_http *list = e->resume_head;
  e->resume_head = NULL;
  while (list) {
    struct lbox_http *h = list;
    list = h->next_resume;
    h->resuming = false;
    h->paused = false;
    curl_easy_pause(h->easy, CURLPAUSE_CONT);
  }
}

void lbox__http_work(struct lbox_engine *e)
{
  resume_paused(e);
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(e->multi, &left))) {
    if (message->msg != CURLMSG_DONE)
      continue;
    struct lbox_http *h = NULL;
    CURLcode code = message->data.result; /* the message dies with the handle */
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&h);
    complete(h, code);
  }
}
