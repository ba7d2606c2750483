/*
** What libcurl is told about one request, and what it calls while the transfer runs. The callbacks
** touch C memory only and never call libcurl back but for facts.
*/
#include "core/http_internal.h"
#include "core/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
  MAX_IDLE_S = 1, /* reuse of a connection that idled longer is refused; libcurl rounds down */
  SMALL_BODY = 16 * 1024,
  MOST_RECEIVED = 16 * 1024, /* at a time */
  LEAST_RECEIVED = 2 * 1024,
  TELL_EVERY_US = 50 * 1000,
  KEEPALIVE_IDLE_S = 30,
  KEEPALIVE_INTERVAL_S = 15
};

/* --- while it runs ---------------------------------------------------------------------------- */

static void fail(struct lbox_http *h, enum lbox_http_failure failure, const char *reason)
{
  h->failure = failure;
  h->reason = reason;
}

/* The answer holds as much as it may. Of an error's text the beginning is enough. */
static size_t overflow(struct lbox_http *h, const char *bytes, size_t n)
{
  size_t room = h->answer.max - lbox_buf_len(&h->answer);
  if (n <= room) {
    fail(h, LBOX_HTTP_OTHER, "not enough memory");
  } else if (h->stream && h->status >= 300) {
    h->truncated = lbox_buf_append(&h->answer, bytes, room);
  } else {
    fail(h, LBOX_HTTP_TOO_LARGE, "the answer is larger than the limit");
  }
  return 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *ud)
{
  struct lbox_http *h = ud;
  (void)size; /* always 1 */
  if (lbox_http_streaming(h) && !h->hungry) {
    size_t len = lbox_buf_len(&h->answer);
    if (len >= lbox__unread_limit(h) + h->asked_at || n > h->answer.max - len) {
      h->paused = true;
      lbox_engine_post(h->engine, &h->ready);
      return CURL_WRITEFUNC_PAUSE;
    }
  }
  if (!lbox_buf_append(&h->answer, bytes, n))
    return overflow(h, bytes, n);
  h->hungry = false;
  lbox_engine_post(h->engine, &h->ready);
  return n;
}

static void headers_done(struct lbox_http *h)
{
  long status = 0;
  curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
  if (status < 200 && !(status == 101 && h->upgrade))
    return;
  h->status = (int)status;
  h->headers_complete = true;
  if (h->stream && status >= 300 && h->answer.max > LBOX__MAX_ERROR_BODY)
    h->answer.max = LBOX__MAX_ERROR_BODY;
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
  if (memchr(line, 0, len)) {
    fail(h, LBOX_HTTP_OTHER, "the answer has a NUL in its headers");
    return 0;
  }
  if (!lbox_buf_append(&h->header_text, line, len) || !lbox_buf_append(&h->header_text, "", 1)) {
    fail(h, LBOX_HTTP_TOO_LARGE, "the answer's headers are too large");
    return 0;
  }
  return n;
}

static void tell_sent(struct lbox_http *h)
{
  int64_t now = lbox_now_us();
  if (now - h->told_at < TELL_EVERY_US)
    return;
  h->told_at = now;
  lbox_engine_post(h->engine, &h->ready);
}

static size_t send_parts(struct lbox_http *h, char *out, size_t n)
{
  long len = lbox_multipart_read(h->multipart, out, n);
  if (len < 0) {
    fail(h, LBOX_HTTP_FILE, lbox_multipart_error(h->multipart));
    return CURL_READFUNC_ABORT;
  }
  h->body_off += (uint64_t)len;
  tell_sent(h);
  return (size_t)len;
}

static size_t on_send(char *out, size_t size, size_t n, void *ud)
{
  struct lbox_http *h = ud;
  if (h->multipart)
    return send_parts(h, out, size * n);
  size_t left = (size_t)(h->body_len - h->body_off);
  size_t len = size * n < left ? size * n : left;
  memcpy(out, h->body + h->body_off, len);
  h->body_off += len;
  return len;
}

/* What an upgrade sends, when there is something: as it is, no chunks around it. */
static size_t on_write(char *out, size_t size, size_t n, void *ud)
{
  struct lbox_http *h = ud;
  size_t len = lbox_buf_len(&h->output);
  if (h->hung_up)
    return 0;
  if (len == 0) {
    h->send_paused = true;
    return CURL_READFUNC_PAUSE;
  }
  len = size * n < len ? size * n : len;
  memcpy(out, lbox_buf_data(&h->output), len);
  lbox_buf_consume(&h->output, len);
  if (lbox_buf_len(&h->output) == 0)
    lbox_engine_post(h->engine, &h->ready);
  return len;
}

/* Refuses to rewind once a byte left: that is how libcurl would repeat a POST. */
static int on_seek(void *ud, curl_off_t offset, int origin)
{
  const struct lbox_http *h = ud;
  bool untouched = h->body_off == 0 && offset == 0 && origin == SEEK_SET;
  return untouched ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
}

/* Before each attempt. libcurl repeats without rewinding when it took body bytes but sent none, and
   when there is no body: on_seek does not see those. */
static int on_attempt(void *ud, char *ip, char *local_ip, int port, int local_port)
{
  struct lbox_http *h = ud;
  long sent = 0;
  (void)ip;
  (void)local_ip;
  (void)port;
  (void)local_port;
  curl_easy_getinfo(h->easy, CURLINFO_REQUEST_SIZE, &sent); /* with what went to a proxy */
  bool complete = h->body_len == 0 && sent > 0;
  if (h->attempts++ == 0 || (h->body_off == 0 && !complete))
    return CURL_PREREQFUNC_OK;
  fail(h, LBOX_HTTP_REWIND, "the connection closed before the answer; not sent again");
  return CURL_PREREQFUNC_ABORT;
}

/* libcurl 7.88 itself opens sockets that spawned programs would inherit, and does not say why it
   could not. */
static curl_socket_t open_socket(void *ud, curlsocktype purpose, struct curl_sockaddr *address)
{
  struct lbox_http *h = ud;
  (void)purpose;
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (fd < 0)
    h->socket_errno = errno;
  return fd;
}

/* --- before it starts ------------------------------------------------------------------------- */

static bool is_loopback_name(const char *host, size_t n)
{
  static const char name[] = "localhost";
  enum { NAME = sizeof name - 1 };
  char text[INET_ADDRSTRLEN];
  struct in_addr v4;
  if (n > NAME && host[n - NAME - 1] == '.') { /* libcurl resolves any *.localhost by itself */
    host += n - NAME;
    n = NAME;
  }
  if (n == NAME && strncasecmp(host, name, NAME) == 0)
    return true;
  if (n >= sizeof text)
    return false;
  memcpy(text, host, n);
  text[n] = 0;
  return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static bool is_loopback(const char *url)
{
  const char *host = strstr(url, "://");
  host = host ? host + 3 : url;
  size_t n = strcspn(host, "/?#");
  const char *at = memrchr(host, '@', n);
  if (at) {
    n -= (size_t)(at + 1 - host);
    host = at + 1;
  }
  if (n >= 5 && strncmp(host, "[::1]", 5) == 0)
    return true;
  const char *colon = memchr(host, ':', n);
  return is_loopback_name(host, colon ? (size_t)(colon - host) : n);
}

static bool is_one_of(const char *word, const char *const *words)
{
  while (*words && strcmp(*words, word) != 0)
    words++;
  return *words != NULL;
}

/* Sets an option unless an earlier one failed. */
#define SET(h, code, option, value)                                                                \
  ((code) = (code) == CURLE_OK ? curl_easy_setopt((h)->easy, option, value) : (code))

static CURLcode set_method(struct lbox_http *h, const struct lbox_http_options *o)
{
  /* Not DELETE: who repeats it has to know, since then "not found" means that it worked. */
  static const char *const repeatable[] = {"GET", "HEAD", "PUT", "OPTIONS", NULL};
  static const char *const with_length[] = {"POST", "PUT", "PATCH", NULL};
  CURLcode code = CURLE_OK;
  h->once = o->upgrade || !is_one_of(o->method, repeatable);
  if (o->upgrade) { /* an upload without an end, which begins when the server has switched */
    SET(h, code, CURLOPT_UPLOAD, 1L);
    SET(h, code, CURLOPT_INFILESIZE_LARGE, (curl_off_t)-1);
    SET(h, code, CURLOPT_READFUNCTION, on_write);
    SET(h, code, CURLOPT_READDATA, h);
    SET(h, code, CURLOPT_FORBID_REUSE, 1L);
    SET(h, code, CURLOPT_UPLOAD_BUFFERSIZE, (long)SMALL_BODY);
  } else if (strcmp(o->method, "HEAD") == 0) {
    SET(h, code, CURLOPT_NOBODY, 1L);
  } else if (o->body || o->parts || is_one_of(o->method, with_length)) {
    SET(h, code, CURLOPT_POST, 1L);
    SET(h, code, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)h->body_len);
    SET(h, code, CURLOPT_READFUNCTION, on_send);
    SET(h, code, CURLOPT_READDATA, h);
    SET(h, code, CURLOPT_SEEKFUNCTION, on_seek);
    SET(h, code, CURLOPT_SEEKDATA, h);
    if (h->body_len <= SMALL_BODY)
      SET(h, code, CURLOPT_UPLOAD_BUFFERSIZE, (long)SMALL_BODY);
  }
  SET(h, code, CURLOPT_CUSTOMREQUEST, o->method);
  if (h->once) {
    SET(h, code, CURLOPT_PREREQFUNCTION, on_attempt);
    SET(h, code, CURLOPT_PREREQDATA, h);
    SET(h, code, CURLOPT_MAXAGE_CONN, (long)MAX_IDLE_S);
    if (h->body_len == 0)
      SET(h, code, CURLOPT_FRESH_CONNECT, 1L);
  }
  return code;
}

static bool add_header(struct lbox_http *h, const char *line)
{
  struct curl_slist *list = curl_slist_append(h->headers, line);
  if (list)
    h->headers = list;
  return list != NULL;
}

static bool add_multipart_type(struct lbox_http *h)
{
  char line[160];
  snprintf(line, sizeof line, "Content-Type: %s", lbox_multipart_type(h->multipart));
  return add_header(h, line);
}

static CURLcode set_headers(struct lbox_http *h, const struct lbox_http_options *o)
{
  bool typed = h->multipart != NULL;
  if (typed && !add_multipart_type(h))
    return CURLE_OUT_OF_MEMORY;
  for (const char *const *line = o->headers; line && *line; line++) {
    typed = typed || strncasecmp(*line, "content-type:", 13) == 0;
    if (!add_header(h, *line))
      return CURLE_OUT_OF_MEMORY;
  }
  /* What libcurl adds of its own accord and no server of ours wants. */
  if (o->upgrade && !add_header(h, "Transfer-Encoding:"))
    return CURLE_OUT_OF_MEMORY;
  if (!add_header(h, "Expect:") || (!typed && !add_header(h, "Content-Type:")))
    return CURLE_OUT_OF_MEMORY;
  return curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, h->headers);
}

static CURLcode set_route(struct lbox_http *h, const struct lbox_http_options *o)
{
  CURLcode code = CURLE_OK;
  SET(h, code, CURLOPT_URL, o->url);
  SET(h, code, CURLOPT_PROTOCOLS_STR, "http,https");
  if (o->unix_socket)
    SET(h, code, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
  if (o->unix_socket || is_loopback(o->url)) {
    SET(h, code, CURLOPT_PROXY, "");
  } else {
    if (o->proxy)
      SET(h, code, CURLOPT_PROXY, o->proxy);
    if (o->no_proxy)
      SET(h, code, CURLOPT_NOPROXY, o->no_proxy);
    SET(h, code, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    if (o->upgrade) /* a proxy that reads along would not let it through */
      SET(h, code, CURLOPT_HTTPPROXYTUNNEL, 1L);
  }
  if (o->ca_file)
    SET(h, code, CURLOPT_CAINFO, o->ca_file);
  /* Over HTTP/2 libcurl would buffer some 32 MB of a paused stream by itself. */
  bool http1 = h->stream || o->http1;
  SET(h, code, CURLOPT_HTTP_VERSION,
      http1 ? (long)CURL_HTTP_VERSION_1_1 : (long)CURL_HTTP_VERSION_2TLS);
  if (!http1 && strncasecmp(o->url, "https:", 6) == 0)
    SET(h, code, CURLOPT_PIPEWAIT, 1L); /* rather share a connection being made than make another */
  return code;
}

/* libcurl has a buffer of this size for each transfer, and keeps as much again of a paused one:
   among many streams it is a small one. */
static long receive_buffer(const struct lbox_http *h)
{
  size_t half = lbox__unread_share(h->engine) / 2;
  if (!h->stream || half > MOST_RECEIVED)
    return MOST_RECEIVED;
  return half > LEAST_RECEIVED ? (long)half : LEAST_RECEIVED;
}

static CURLcode set_callbacks(struct lbox_http *h)
{
  CURLcode code = CURLE_OK;
  SET(h, code, CURLOPT_NOSIGNAL, 1L);
  SET(h, code, CURLOPT_QUICK_EXIT, 1L);
  SET(h, code, CURLOPT_TCP_NODELAY, 1L);
  /* A stream may be silent for long: the kernel finds out when its peer has vanished. */
  SET(h, code, CURLOPT_TCP_KEEPALIVE, 1L);
  SET(h, code, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
  SET(h, code, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_INTERVAL_S);
  /* The caller's deadline decides; libcurl's own default would end a long wait before it. */
  SET(h, code, CURLOPT_CONNECTTIMEOUT_MS, (long)INT32_MAX);
  SET(h, code, CURLOPT_BUFFERSIZE, receive_buffer(h));
  SET(h, code, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  SET(h, code, CURLOPT_OPENSOCKETDATA, h);
  SET(h, code, CURLOPT_ERRORBUFFER, h->curl_reason);
  SET(h, code, CURLOPT_PRIVATE, h);
  SET(h, code, CURLOPT_WRITEFUNCTION, on_body);
  SET(h, code, CURLOPT_WRITEDATA, h);
  SET(h, code, CURLOPT_HEADERFUNCTION, on_header);
  SET(h, code, CURLOPT_HEADERDATA, h);
  return code;
}

CURLcode lbox__transfer_setup(struct lbox_http *h, const struct lbox_http_options *o)
{
  CURLcode code = set_callbacks(h);
  if (code == CURLE_OK)
    code = set_route(h, o);
  if (code == CURLE_OK)
    code = set_method(h, o);
  return code == CURLE_OK ? set_headers(h, o) : code;
}
