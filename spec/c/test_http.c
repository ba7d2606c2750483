/* Requests that go well, streams and their flow control, limits. */
#include "http_support.h"

#include <fcntl.h>

static void test_get_and_post(void)
{
  struct lbox_http *h = run((struct lbox_http_options){0}, "/echo");
  check_ok(h, "");
  CHECK_TEXT(lbox_http_header(h, "x-ANSWER"), "second"); /* the last of that name */
  CHECK_TEXT(lbox_http_header(h, "content-length"), "0");
  CHECK(lbox_http_header(h, "X-Ans") == NULL);
  CHECK(lbox_http_was_sent(h));
  CHECK(!lbox_http_streaming(h));
  lbox_http_unref(h);

  h = run((struct lbox_http_options){.method = "POST", .body = "some\0bytes", .body_len = 10},
          "/echo");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  CHECK_INT(lbox_buf_len(lbox_http_body(h)), 10);
  CHECK(memcmp(lbox_buf_data(lbox_http_body(h)), "some\0bytes", 10) == 0);
  lbox_http_unref(h);
}

static void test_unix_socket(void)
{
  struct lbox_http_options o = {.url = "http://localhost/echo", .unix_socket = server.unix_path};
  o.method = "POST";
  o.body = "through a path";
  struct lbox_http *h = run(o, NULL);
  check_ok(h, "through a path");
  lbox_http_unref(h);
}

static bool head_has(struct lbox_http *h, const char *text)
{
  const struct lbox_buf *b = lbox_http_body(h);
  return memmem(b->base + b->start, lbox_buf_len(b), text, strlen(text)) != NULL;
}

static void test_request_says_what_was_asked_and_no_more(void)
{
  static const char *const headers[] = {"Authorization: Bearer key", "Content-Type: text/x-test",
                                        NULL};
  struct lbox_http_options o = {.method = "POST", .body = "{}", .headers = headers};
  struct lbox_http *h = run(o, "/head");
  CHECK(head_has(h, "POST /head HTTP/1.1\r\n"));
  CHECK(head_has(h, "Authorization: Bearer key\r\n"));
  CHECK(head_has(h, "Content-Type: text/x-test\r\n"));
  CHECK(head_has(h, "Content-Length: 2\r\n"));
  CHECK(!head_has(h, "Expect:"));
  CHECK(!head_has(h, "Accept-Encoding:"));
  CHECK(!head_has(h, "Transfer-Encoding:"));
  lbox_http_unref(h);

  static char large[100000];
  memset(large, 'x', sizeof large);
  h = run((struct lbox_http_options){.method = "POST", .body = large, .body_len = sizeof large},
          "/head");
  CHECK(head_has(h, "Content-Length: 100000\r\n"));
  CHECK(!head_has(h, "Expect:"));
  CHECK(!head_has(h, "Content-Type:"));
  lbox_http_unref(h);
}

static void test_methods(void)
{
  static const struct {
    const char *method, *body, *line, *length;
  } cases[] = {{"DELETE", NULL, "DELETE /head ", NULL},
               {"DELETE", "{}", "DELETE /head ", "Content-Length: 2\r\n"},
               {"PUT", "abc", "PUT /head ", "Content-Length: 3\r\n"},
               {"PUT", NULL, "PUT /head ", "Content-Length: 0\r\n"},
               {"PATCH", "abcd", "PATCH /head ", "Content-Length: 4\r\n"},
               {"POST", NULL, "POST /head ", "Content-Length: 0\r\n"},
               {"GET", NULL, "GET /head ", NULL}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct lbox_http_options o = {.method = cases[i].method, .body = cases[i].body};
    struct lbox_http *h = run(o, "/head");
    CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
    CHECK(head_has(h, cases[i].line));
    CHECK(cases[i].length ? head_has(h, cases[i].length) : !head_has(h, "Content-Length"));
    lbox_http_unref(h);
  }
  struct lbox_http *h = run((struct lbox_http_options){.url = url_of("/informational")}, NULL);
  CHECK_INT(lbox_http_status(h), 202);
  CHECK(lbox_http_header(h, "X-Early") == NULL);
  CHECK(body_is(h, "late"));
  lbox_http_unref(h);
}

static void test_chunked_answer(void)
{
  struct lbox_http *h = run((struct lbox_http_options){.stream = true}, "/chunks");
  check_ok(h, "hello world");
  CHECK(lbox_http_streaming(h));
  CHECK(lbox_http_header(h, "X-Trailer") == NULL);
  lbox_http_unref(h);
}

static void test_connections_are_reused(void)
{
  int number = warm_up();
  for (int i = 0; i < 3; i++)
    CHECK_INT(warm_up(), number);
}

static void test_many_at_once(void)
{
  enum { MANY = 100 };
  struct lbox_http *all[MANY];
  for (int i = 0; i < MANY; i++)
    all[i] = start((struct lbox_http_options){.method = "POST", .body = "one of many"}, "/echo");
  for (int i = 0; i < MANY; i++) {
    finish(all[i]);
    check_ok(all[i], "one of many");
    lbox_http_unref(all[i]);
  }
}

static void test_every_change_is_posted(void)
{
  struct lbox_http *h = start((struct lbox_http_options){.stream = true}, "/stall");
  bool posted = false;
  for (int64_t end = lbox_now_us() + PATIENCE_US; !posted && lbox_now_us() < end;) {
    lbox_engine_step(engine, 20);
    posted = lbox_engine_ready(engine) == lbox_http_id(h);
  }
  CHECK(posted);
  CHECK_INT(lbox_http_status(h), 200);
  CHECK_INT(lbox_engine_ready(engine), 0);
  turn_for(50); /* the body may have come with the headers or after them */
  CHECK(body_is(h, "begin"));
  CHECK(!lbox_http_done(h));
  lbox_http_cancel(h);
  CHECK_INT(lbox_engine_ready(engine), lbox_http_id(h));
  lbox_http_unref(h);
}

/* Waits until nothing comes any more; returns the bytes that are held. */
static size_t settle(struct lbox_http *h)
{
  size_t len;
  do {
    len = lbox_buf_len(lbox_http_body(h));
    turn_for(100);
  } while (lbox_buf_len(lbox_http_body(h)) != len);
  return len;
}

static void test_an_unread_stream_stays_small(void)
{
  struct lbox_http *h =
      start((struct lbox_http_options){.stream = true, .max_body = BIG_SIZE}, "/big");
  atomic_store(&server.shared->bytes_out, 0);
  while (lbox_buf_len(lbox_http_body(h)) == 0)
    turn();
  size_t held = settle(h);
  CHECK(held >= 4 * 1024 && held <= 20 * 1024);
  CHECK(lbox_http_body(h)->cap <= 32 * 1024);
  CHECK(atomic_load(&server.shared->bytes_out) < BIG_SIZE); /* the server was held up, too */

  size_t total = 0, wrong = 0, largest = 0;
  for (int64_t end = lbox_now_us() + PATIENCE_US; lbox_now_us() < end;) {
    struct lbox_buf *b = lbox_http_body(h);
    size_t n = lbox_buf_len(b);
    if (n == 0 && lbox_http_done(h))
      break;
    largest = n > largest ? n : largest;
    for (size_t i = 0; i < n; i++)
      wrong += (unsigned char)lbox_buf_data(b)[i] != (total + i) % 251;
    lbox_buf_consume(b, n);
    total += n;
    lbox_http_consumed(h, true);
    turn();
  }
  CHECK_INT(total, BIG_SIZE);
  CHECK_INT(wrong, 0);
  CHECK(largest <= 600 * 1024);
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  lbox_http_unref(h);
}

/* Consumes all but `left` bytes, and waits until nothing comes any more. */
static size_t read_down_to(struct lbox_http *h, size_t left)
{
  struct lbox_buf *b = lbox_http_body(h);
  lbox_buf_consume(b, lbox_buf_len(b) - left);
  lbox_http_consumed(h, false);
  return settle(h);
}

static void test_a_stream_gets_more_each_time_its_reader_caught_up(void)
{
  struct lbox_http *h =
      start((struct lbox_http_options){.stream = true, .max_body = BIG_SIZE}, "/big");
  while (lbox_buf_len(lbox_http_body(h)) == 0)
    turn();
  size_t piece = 20 * 1024; /* what came last is not counted */
  for (size_t may = 4 * 1024; may < 512 * 1024; may *= 2) {
    size_t held = may == 4 * 1024 ? settle(h) : read_down_to(h, 1000);
    CHECK(held >= may && held <= may + piece);
  }
  CHECK_INT(read_down_to(h, 100 * 1024), 100 * 1024); /* not yet */
  lbox_buf_consume(lbox_http_body(h), 50 * 1024);
  lbox_http_consumed(h, false);
  CHECK_INT(lbox_engine_timeout(engine), 0); /* step has something to do */
  CHECK(settle(h) >= 256 * 1024);
  lbox_http_cancel(h);
  lbox_http_unref(h);
}

static void test_many_streams_share_what_they_may_hold(void)
{
  enum { STREAMS = 64, SHARE = 64 * 1024, AT_A_TIME = 16 * 1024 };
  struct lbox_http *all[STREAMS];
  for (int i = 0; i < STREAMS; i++)
    all[i] = start((struct lbox_http_options){.stream = true, .max_body = BIG_SIZE}, "/big");
  for (int round = 0; round < 8; round++) {
    turn_for(50);
    for (int i = 0; i < STREAMS; i++) {
      struct lbox_buf *b = lbox_http_body(all[i]);
      lbox_buf_consume(b, lbox_buf_len(b));
      lbox_http_consumed(all[i], false);
    }
  }
  turn_for(100);
  size_t largest = 0;
  for (int i = 0; i < STREAMS; i++) {
    size_t len = lbox_buf_len(lbox_http_body(all[i]));
    largest = len > largest ? len : largest;
    lbox_http_cancel(all[i]);
    lbox_http_unref(all[i]);
  }
  CHECK(largest >= SHARE && largest <= SHARE + AT_A_TIME);
}

static void test_a_hungry_reader_gets_more_but_never_over_the_limit(void)
{
  enum { LIMIT = 1024 * 1024 };
  struct lbox_http *h =
      start((struct lbox_http_options){.stream = true, .max_body = LIMIT}, "/big");
  size_t largest = 0;
  for (int64_t end = lbox_now_us() + PATIENCE_US; !lbox_http_done(h) && lbox_now_us() < end;) {
    size_t len = lbox_buf_len(lbox_http_body(h));
    largest = len > largest ? len : largest;
    lbox_http_consumed(h, true);
    turn();
  }
  CHECK(largest > 900 * 1024 && largest <= LIMIT);
  check_failed_as(h, LBOX_HTTP_TOO_LARGE, true);
  CHECK_TEXT(lbox_http_failure_text(h), "the answer is larger than the limit");
  lbox_http_unref(h);
}

static void test_a_stream_with_a_small_limit_waits_for_its_reader(void)
{
  struct lbox_http *h =
      start((struct lbox_http_options){.stream = true, .max_body = 50000}, "/big");
  while (lbox_http_status(h) == 0)
    turn();
  size_t total = 0, largest = 0;
  for (int64_t end = lbox_now_us() + PATIENCE_US; lbox_now_us() < end;) {
    size_t n = lbox_buf_len(lbox_http_body(h));
    if (n == 0 && lbox_http_done(h))
      break;
    largest = n > largest ? n : largest;
    lbox_buf_consume(lbox_http_body(h), n);
    total += n;
    lbox_http_consumed(h, n == 0);
    turn();
  }
  CHECK_INT(total, BIG_SIZE);
  CHECK(largest <= 50000);
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  lbox_http_unref(h);
}

static void test_limits(void)
{
  struct lbox_http *h = run((struct lbox_http_options){.max_body = 1000}, "/filled");
  check_failed_as(h, LBOX_HTTP_TOO_LARGE, true);
  CHECK_INT(lbox_http_status(h), 200);
  CHECK(lbox_buf_len(lbox_http_body(h)) <= 1000);
  lbox_http_unref(h);

  h = run((struct lbox_http_options){.max_body = 200000}, "/filled");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  CHECK_INT(lbox_buf_len(lbox_http_body(h)), 200000);
  lbox_http_unref(h);

  h = run((struct lbox_http_options){0}, "/headers");
  check_failed_as(h, LBOX_HTTP_TOO_LARGE, true);
  CHECK_INT(lbox_http_status(h), 0);
  CHECK_TEXT(lbox_http_failure_text(h), "the answer's headers are too large");
  lbox_http_unref(h);
}

static void test_an_error_answer_to_a_stream_is_a_plain_body(void)
{
  struct lbox_http *h = run((struct lbox_http_options){.stream = true}, "/error");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  CHECK_INT(lbox_http_status(h), 500);
  CHECK(!lbox_http_streaming(h));
  CHECK_INT(lbox_buf_len(lbox_http_body(h)), 64 * 1024); /* the beginning is enough */
  lbox_http_unref(h);

  h = run((struct lbox_http_options){0}, "/error");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  CHECK_INT(lbox_buf_len(lbox_http_body(h)), 200000);
  lbox_http_unref(h);
}

static void test_loopback_never_goes_through_a_proxy(void)
{
  static const char *const hosts[] = {"127.0.0.1", "localhost", "user@127.0.0.1", "a.localhost",
                                      NULL};
  char url[128];
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  for (int i = 0; hosts[i]; i++) {
    snprintf(url, sizeof url, "http://%s:%d/echo", hosts[i], server.port);
    struct lbox_http_options o = {
        .method = "POST", .body = "direct", .proxy = "http://127.0.0.1:1"};
    o.url = url;
    struct lbox_http *h = run(o, NULL);
    check_ok(h, "direct");
    lbox_http_unref(h);
  }
  unsetenv("http_proxy");
}

static void test_sockets_are_not_inherited(void)
{
  struct lbox_http *h = start((struct lbox_http_options){.stream = true}, "/stall");
  while (lbox_http_status(h) == 0)
    turn();
  int sockets = 0;
  for (int fd = 3; fd < 100; fd++) {
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.ss_family == AF_INET) {
      sockets++;
      CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
  }
  CHECK(sockets >= 1);
  lbox_http_cancel(h);
  lbox_http_unref(h);
}

int main(void)
{
  static void (*const tests[])(void) = {
      test_get_and_post,
      test_unix_socket,
      test_request_says_what_was_asked_and_no_more,
      test_methods,
      test_chunked_answer,
      test_connections_are_reused,
      test_many_at_once,
      test_every_change_is_posted,
      test_an_unread_stream_stays_small,
      test_a_stream_gets_more_each_time_its_reader_caught_up,
      test_many_streams_share_what_they_may_hold,
      test_a_hungry_reader_gets_more_but_never_over_the_limit,
      test_a_stream_with_a_small_limit_waits_for_its_reader,
      test_limits,
      test_an_error_answer_to_a_stream_is_a_plain_body,
      test_loopback_never_goes_through_a_proxy,
      test_sockets_are_not_inherited,
  };
  loopback_start(&server);
  int fds = check_open_fds();
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    open_engine();
    tests[i]();
    close_engine();
  }
  CHECK_INT(check_open_fds(), fds);
  loopback_stop(&server);
  return check_summary();
}
