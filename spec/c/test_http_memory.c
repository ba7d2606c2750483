/* Memory that runs out inside libcurl: each allocation of a request's life fails once. */
#include <curl/curl.h>

#include "http_support.h"

static long fail_at, allocations; /* the n-th allocation fails; 0: none */

static bool fails(void)
{
  allocations++;
  return allocations == fail_at;
}

static void *failing_malloc(size_t n)
{
  return fails() ? NULL : malloc(n);
}

static void *failing_calloc(size_t n, size_t size)
{
  return fails() ? NULL : calloc(n, size);
}

static void *failing_realloc(void *p, size_t n)
{
  return fails() ? NULL : realloc(p, n);
}

static char *failing_strdup(const char *s)
{
  return fails() ? NULL : strdup(s);
}

/* A whole life of an engine with one request. Whether it got through. */
static bool live(void)
{
  static const char *const headers[] = {"X-Test: yes", NULL};
  struct lbox_err err = {0};
  struct lbox_http_options o = {.method = "POST", .url = url_of("/echo"), .headers = headers};
  bool ok = false;
  o.body = "hello";
  o.body_len = 5;
  o.max_body = 1000;
  if (lbox_engine_new(&engine, &err) != LBOX_OK) {
    CHECK(err.rc != LBOX_OK && err.text[0]);
    return false;
  }
  struct lbox_http *h = lbox_http_start(engine, &o, &err);
  if (h) {
    finish(h);
    ok = lbox_http_failure(h) == LBOX_HTTP_OK;
    CHECK(ok ? body_is(h, "hello") : lbox_http_failure_text(h)[0] != 0);
    lbox_http_unref(h);
  } else {
    CHECK(err.rc != LBOX_OK && err.text[0]);
  }
  close_engine();
  return ok;
}

int main(void)
{
  curl_global_init_mem(CURL_GLOBAL_DEFAULT, failing_malloc, free, failing_realloc, failing_strdup,
                       failing_calloc);
  loopback_start(&server);
  CHECK(live());
  int fds = check_open_fds();
  allocations = 0;
  CHECK(live());
  long all = allocations;
  CHECK(all > 20);
  for (fail_at = 1; fail_at <= all; fail_at++) {
    allocations = 0;
    live();
  }
  fail_at = 0;
  CHECK(live());
  CHECK_INT(check_open_fds(), fds);
  loopback_stop(&server);
  return check_summary();
}
