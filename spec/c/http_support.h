/* What the HTTP tests share: one server, one engine, and requests that are stepped to their end. */
#ifndef LBOX_HTTP_SUPPORT_H
#define LBOX_HTTP_SUPPORT_H

#include "core/http.h"
#include "core/util.h"

#include "check.h"
#include "loopback.h"

enum { PATIENCE_US = 20 * 1000 * 1000 };

static struct loopback server;
static struct lbox_engine *engine;

static inline void open_engine(void)
{
  struct lbox_err err;
  if (lbox_engine_new(&engine, &err) != LBOX_OK)
    abort();
}

static inline void close_engine(void)
{
  lbox_engine_close(engine);
  lbox_engine_unref(engine);
  engine = NULL;
}

/* One turn of a host: a step of at most 20 ms, and the ready queue emptied. */
static inline void turn(void)
{
  lbox_engine_step(engine, 20);
  while (lbox_engine_ready(engine))
    ;
}

static inline void turn_for(int64_t ms)
{
  for (int64_t end = lbox_now_us() + ms * 1000; lbox_now_us() < end;)
    turn();
}

static inline const char *url_of(const char *path)
{
  static char url[256];
  snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server.port, path);
  return url;
}

static inline struct lbox_http *start(struct lbox_http_options o, const char *path)
{
  struct lbox_err err = {0};
  o.method = o.method ? o.method : "GET";
  o.url = o.url ? o.url : url_of(path);
  o.max_body = o.max_body ? o.max_body : 1024 * 1024;
  if (o.body && !o.body_len)
    o.body_len = strlen(o.body);
  struct lbox_http *h = lbox_http_start(engine, &o, &err);
  if (!CHECK(h != NULL)) {
    fprintf(stderr, "%s\n", err.text);
    abort();
  }
  return h;
}

static inline void finish(struct lbox_http *h)
{
  for (int64_t end = lbox_now_us() + PATIENCE_US; !lbox_http_done(h) && lbox_now_us() < end;)
    turn();
  CHECK(lbox_http_done(h));
}

static inline struct lbox_http *run(struct lbox_http_options o, const char *path)
{
  struct lbox_http *h = start(o, path);
  finish(h);
  return h;
}

static inline bool body_is(struct lbox_http *h, const char *text)
{
  const struct lbox_buf *b = lbox_http_body(h);
  size_t n = strlen(text);
  bool same = lbox_buf_len(b) == n && (n == 0 || memcmp(b->base + b->start, text, n) == 0);
  if (!same)
    fprintf(stderr, "body '%.*s'\n", (int)lbox_buf_len(b), b->base ? b->base + b->start : "");
  return same;
}

static inline void check_ok(struct lbox_http *h, const char *body)
{
  if (!CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK))
    fprintf(stderr, "%s\n", lbox_http_failure_text(h));
  CHECK_INT(lbox_http_status(h), 200);
  CHECK(body_is(h, body));
}

static inline void check_failed_as(struct lbox_http *h, enum lbox_http_failure failure, bool sent)
{
  CHECK_TEXT(lbox_http_failure_name(lbox_http_failure(h)), lbox_http_failure_name(failure));
  CHECK(lbox_http_was_sent(h) == sent);
  CHECK(lbox_http_failure_text(h)[0] != 0);
}

/* Leaves an idle connection behind; returns its number. */
static inline int warm_up(void)
{
  struct lbox_http *h = run((struct lbox_http_options){0}, "/connection");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  struct lbox_buf *b = lbox_http_body(h);
  lbox_buf_append(b, "", 1);
  int number = (int)strtol(lbox_buf_data(b), NULL, 10);
  lbox_http_unref(h);
  return number;
}

#endif
