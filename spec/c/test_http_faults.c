/* Requests that go wrong: what is told about them, and what is never done twice or left over. */
#include "http_support.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/epoll.h>

/* libcurl is made to fail by refusing to watch its sockets. */
static bool refuse_sockets;

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
  static int (*real)(int, int, int, struct epoll_event *);
  if (refuse_sockets && op == EPOLL_CTL_ADD) {
    errno = ENOSPC;
    return -1;
  }
  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, "epoll_ctl");
  return real(epfd, op, fd, event);
}

static int executions(void)
{
  return atomic_load(&server.shared->executions);
}

/* libcurl would repeat these on a new connection, and the server would do the work twice. */
static void test_work_is_done_once_when_a_reused_connection_closes(void)
{
  static char large[300000];
  memset(large, 'x', sizeof large);
  static const struct lbox_http_options cases[] = {
      {.method = "POST", .body = "pay 100"},
      {.method = "POST", .body = large, .body_len = sizeof large},
      {.method = "POST", .body = "pay 100", .stream = true},
      {.method = "PATCH", .body = "pay 100"},
      {.method = "POST"},
      {.method = "POST", .body = ""},
      {.method = "POST", .stream = true},
      {.method = "PATCH"},
      {.method = "PURGE"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    warm_up();
    int before = executions(), connections = atomic_load(&server.shared->connections);
    struct lbox_http *h = run(cases[i], "/work-then-close");
    CHECK_INT(executions(), before + 1);
    CHECK(lbox_http_was_sent(h));
    CHECK_INT(lbox_http_status(h), 0);
    bool with_body = cases[i].body && cases[i].body[0];
    check_failed_as(h, with_body ? LBOX_HTTP_REWIND : LBOX_HTTP_RECV, true);
    if (!with_body) /* there is nothing that could fail to rewind: it never reuses a connection */
      CHECK_INT(atomic_load(&server.shared->connections), connections + 1);
    lbox_http_unref(h);
  }
}

static void test_a_repeatable_request_survives_that(void)
{
  for (int i = 0; i < 3; i++) {
    int farewells = atomic_load(&server.shared->farewells);
    struct lbox_http *h = run((struct lbox_http_options){0}, "/answer-then-close");
    check_ok(h, "bye");
    lbox_http_unref(h);
    while (atomic_load(&server.shared->farewells) == farewells)
      turn();
    h = run((struct lbox_http_options){.method = "POST", .body = "x"}, "/echo");
    check_ok(h, "x"); /* the closed connection is noticed before anything is sent */
    lbox_http_unref(h);
  }
}

static void test_a_post_does_not_reuse_an_idle_connection(void)
{
  int number = warm_up();
  usleep(2050000);
  CHECK_INT(warm_up(), number); /* a GET does */
  usleep(2050000);
  struct lbox_http *h =
      run((struct lbox_http_options){.method = "POST", .body = "x"}, "/connection");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  CHECK(!lbox_http_failure(h) && lbox_buf_len(lbox_http_body(h)) > 0);
  lbox_buf_append(lbox_http_body(h), "", 1);
  CHECK((int)strtol(lbox_buf_data(lbox_http_body(h)), NULL, 10) > number);
  lbox_http_unref(h);
}

static void fails_as(struct lbox_http_options o, const char *path, enum lbox_http_failure failure,
                     bool sent)
{
  struct lbox_http *h = run(o, path);
  check_failed_as(h, failure, sent);
  lbox_http_unref(h);
}

static void test_nothing_was_sent_when_there_was_no_one_to_send_to(void)
{
  static const char *const methods[] = {"GET", "POST", NULL};
  char refused[64], nobody[128], long_path[300] = "/";
  int port;
  close(listen_tcp(&port, 1));
  snprintf(refused, sizeof refused, "http://127.0.0.1:%d/", port);
  /* A label of more than 63 letters cannot be resolved, with or without a network. */
  snprintf(nobody, sizeof nobody, "http://%070d.invalid/", 1);
  memset(long_path + 1, 'x', sizeof long_path - 2);
  for (int i = 0; methods[i]; i++) {
    struct lbox_http_options o = {.method = methods[i], .url = refused, .body = "x"};
    fails_as(o, NULL, LBOX_HTTP_CONNECT, false);
    o.url = nobody;
    fails_as(o, NULL, LBOX_HTTP_RESOLVE, false);
    o.url = "http://localhost/";
    o.unix_socket = "/tmp/lbox-no-such.sock";
    fails_as(o, NULL, LBOX_HTTP_CONNECT, false);
    o.unix_socket = long_path;
    fails_as(o, NULL, LBOX_HTTP_CONNECT, false);
  }
}

static void test_bad_addresses(void)
{
  static const char *const urls[] = {"file:///etc/passwd", "ftp://127.0.0.1/", "http://", "",
                                     "nonsense://x",       "http://[::bad/",   NULL};
  for (int i = 0; urls[i]; i++) {
    struct lbox_http_options o = {.url = urls[i]};
    struct lbox_http *h = run(o, NULL);
    CHECK(lbox_http_failure(h) != LBOX_HTTP_OK);
    CHECK(!lbox_http_was_sent(h));
    CHECK(lbox_http_failure_text(h)[0] != 0);
    lbox_http_unref(h);
  }
}

static void test_tls_with_a_server_that_has_none(void)
{
  char url[64];
  snprintf(url, sizeof url, "https://127.0.0.1:%d/echo", server.port);
  fails_as((struct lbox_http_options){.url = url}, NULL, LBOX_HTTP_TLS, false);
  struct lbox_http_options o = {.url = url, .ca_file = "/nonexistent/ca.pem"};
  fails_as(o, NULL, LBOX_HTTP_TLS, false);
}

static void test_cut_answers(void)
{
  for (int stream = 0; stream < 2; stream++) {
    struct lbox_http_options o = {.stream = stream};
    struct lbox_http *h = run(o, "/cut");
    check_failed_as(h, LBOX_HTTP_PARTIAL, true);
    CHECK_INT(lbox_http_status(h), 200);
    CHECK(body_is(h, "0123456789"));
    lbox_http_unref(h);
    h = run(o, "/cut-chunk");
    check_failed_as(h, LBOX_HTTP_PARTIAL, true);
    CHECK(body_is(h, "hello"));
    lbox_http_unref(h);
    fails_as(o, "/close", LBOX_HTTP_RECV, true);
  }
  struct lbox_http *h = run((struct lbox_http_options){0}, "/garbage");
  CHECK(lbox_http_failure(h) != LBOX_HTTP_OK);
  CHECK(lbox_http_was_sent(h));
  lbox_http_unref(h);
  h = run((struct lbox_http_options){0}, "/cut-headers");
  check_failed_as(h, LBOX_HTTP_RECV, true);
  CHECK_INT(lbox_http_status(h), 0);
  lbox_http_unref(h);
}

static void test_a_reset_while_sending(void)
{
  static char large[4 * 1024 * 1024];
  struct lbox_http_options o = {.method = "POST", .body = large, .body_len = sizeof large};
  struct lbox_http *h = run(o, "/reset");
  CHECK(lbox_http_failure(h) == LBOX_HTTP_SEND || lbox_http_failure(h) == LBOX_HTTP_RECV);
  CHECK(lbox_http_was_sent(h));
  lbox_http_unref(h);
}

static void test_proxy(void)
{
  char proxy[64];
  snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", server.port);
  struct lbox_http_options o = {.url = "http://somewhere.invalid/echo", .proxy = proxy};
  struct lbox_http *h = run(o, NULL);
  CHECK(lbox_http_failure(h) == LBOX_HTTP_RECV); /* it came there: no such path at our server */
  CHECK(lbox_http_was_sent(h));
  lbox_http_unref(h);
  o.url = "https://somewhere.invalid/";
  o.proxy = "http://no-such-proxy..invalid:1";
  fails_as(o, NULL, LBOX_HTTP_PROXY, false);
}

/* --- cancelling ------------------------------------------------------------------------------- */

static void cancel(struct lbox_http *h)
{
  lbox_http_cancel(h);
  CHECK(lbox_http_done(h));
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_CANCELLED);
  CHECK_INT(lbox_engine_ready(engine), lbox_http_id(h));
  lbox_http_cancel(h);
  CHECK_INT(lbox_engine_ready(engine), 0);
  lbox_http_unref(h);
  turn();
}

static void test_cancel_before_any_step(void)
{
  struct lbox_http *h = start((struct lbox_http_options){0}, "/echo");
  lbox_http_cancel(h);
  CHECK(!lbox_http_was_sent(h));
  lbox_http_unref(h);
  cancel(start((struct lbox_http_options){.method = "POST", .body = "x"}, "/echo"));
}

static void test_cancel_while_resolving(void)
{
  char url[128];
  int64_t began = lbox_now_us();
  snprintf(url, sizeof url, "http://%070d.invalid/",
           1); /* the resolver's thread needs no network */
  for (int i = 0; i < 20; i++) {
    struct lbox_http *h = start((struct lbox_http_options){.url = url}, NULL);
    lbox_engine_step(engine, 0);
    lbox_http_cancel(h);
    CHECK(lbox_http_done(h));
    CHECK(!lbox_http_was_sent(h));
    lbox_http_unref(h);
  }
  CHECK(lbox_now_us() - began < 5000000);
}

/* A listener whose queue is full does not answer: the connection stays half made. */
static void test_cancel_while_connecting(void)
{
  int port, fds[4];
  int listener = listen_tcp(&port, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  to.sin_port = htons((uint16_t)port);
  for (int i = 0; i < 4; i++) {
    fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)connect(fds[i], (struct sockaddr *)&to, sizeof to);
  }
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
  struct lbox_http *h = start((struct lbox_http_options){.url = url}, NULL);
  turn_for(50);
  CHECK(!lbox_http_done(h));
  lbox_http_cancel(h);
  CHECK(!lbox_http_was_sent(h));
  lbox_http_unref(h);
  for (int i = 0; i < 4; i++)
    close(fds[i]);
  close(listener);
}

static void test_cancel_while_sending(void)
{
  static char large[16 * 1024 * 1024];
  struct lbox_http_options o = {.method = "POST", .body = large, .body_len = sizeof large};
  struct lbox_http *h = start(o, "/unread");
  turn_for(100);
  CHECK(!lbox_http_done(h));
  cancel(h);
}

static void test_cancel_while_waiting_for_the_answer(void)
{
  struct lbox_http *h = start((struct lbox_http_options){.method = "POST", .body = "x"}, "/silent");
  turn_for(50);
  CHECK(!lbox_http_done(h));
  lbox_http_cancel(h);
  CHECK(lbox_http_was_sent(h));
  lbox_http_unref(h);
}

static void test_cancel_within_the_answer(void)
{
  struct lbox_http *h = start((struct lbox_http_options){.stream = true}, "/stall");
  while (lbox_buf_len(lbox_http_body(h)) == 0)
    turn();
  CHECK(body_is(h, "begin"));
  cancel(h);
}

static void test_cancel_while_paused_and_while_resuming(void)
{
  struct lbox_http *all[3];
  for (int i = 0; i < 3; i++) {
    all[i] = start((struct lbox_http_options){.stream = true, .max_body = BIG_SIZE}, "/big");
    while (lbox_buf_len(lbox_http_body(all[i])) == 0)
      turn();
    turn_for(50); /* by now it holds as much as it may */
  }
  for (int i = 0; i < 3; i++)
    lbox_http_consumed(all[i], true); /* all three wait to be resumed */
  cancel(all[2]);
  for (int i = 0; i < 2; i++)
    lbox_http_consumed(all[i], true);
  lbox_http_cancel(all[0]);
  lbox_http_unref(all[0]);
  size_t before = lbox_buf_len(lbox_http_body(all[1]));
  turn_for(50);
  CHECK(lbox_buf_len(lbox_http_body(all[1])) > before);
  cancel(all[1]);
}

static void test_cancel_when_it_is_over(void)
{
  struct lbox_http *h = run((struct lbox_http_options){.method = "POST", .body = "kept"}, "/echo");
  lbox_http_cancel(h);
  check_ok(h, "kept");
  lbox_http_unref(h);
}

static void test_a_deadline_ends_the_wait(void)
{
  struct lbox_http *h = start((struct lbox_http_options){0}, "/silent");
  int64_t began = lbox_now_us(), deadline = began + 80000;
  lbox_engine_deadline(engine, deadline);
  while (!lbox_http_done(h) && lbox_now_us() < deadline) {
    lbox_engine_step(engine, -1);
    while (lbox_engine_ready(engine))
      ;
  }
  int64_t took = lbox_now_us() - began;
  CHECK(took >= 80000 && took < 2000000);
  cancel(h);
}

/* --- ends of engines and processes ------------------------------------------------------------ */

static void test_dropping_a_running_request_lets_it_run(void)
{
  int before = executions();
  lbox_http_unref(
      start((struct lbox_http_options){.method = "POST", .body = "x"}, "/work-then-close"));
  for (int64_t end = lbox_now_us() + PATIENCE_US; executions() == before && lbox_now_us() < end;)
    turn();
  CHECK_INT(executions(), before + 1);
  turn_for(50);
}

static void test_closing_the_engine_ends_its_requests(void)
{
  struct lbox_err err;
  struct lbox_http *silent = start((struct lbox_http_options){0}, "/silent");
  struct lbox_http *paused =
      start((struct lbox_http_options){.stream = true, .max_body = BIG_SIZE}, "/big");
  struct lbox_http *fresh = start((struct lbox_http_options){0}, "/echo");
  turn_for(100);
  lbox_http_unref(fresh);
  lbox_engine_close(engine);
  CHECK_INT(lbox_http_failure(silent), LBOX_HTTP_CANCELLED);
  CHECK_INT(lbox_http_failure(paused), LBOX_HTTP_CANCELLED);
  CHECK(lbox_http_done(silent) && lbox_http_done(paused));
  CHECK(lbox_buf_len(lbox_http_body(paused)) > 0);
  struct lbox_http_options o = {.method = "GET", .url = url_of("/echo"), .max_body = 1};
  CHECK(lbox_http_start(engine, &o, &err) == NULL);
  CHECK_INT(err.rc, LBOX_ECLOSED);
  lbox_engine_unref(engine); /* the requests still hold it */
  lbox_http_consumed(paused, true);
  lbox_http_unref(silent);
  lbox_http_unref(paused);
  open_engine();
}

static void test_when_libcurl_fails_all_requests_do_and_new_ones_work(void)
{
  struct lbox_http *silent = start((struct lbox_http_options){0}, "/silent");
  turn_for(50);
  refuse_sockets = true;
  struct lbox_http *h = run((struct lbox_http_options){0}, "/echo");
  refuse_sockets = false;
  check_failed_as(h, LBOX_HTTP_OTHER, lbox_http_was_sent(h));
  CHECK(lbox_http_done(silent));
  CHECK_INT(lbox_http_failure(silent), LBOX_HTTP_OTHER);
  lbox_http_unref(silent);
  lbox_http_unref(h);
  h = run((struct lbox_http_options){.method = "POST", .body = "anew"}, "/echo");
  check_ok(h, "anew");
  lbox_http_unref(h);
}

static int use_in_child(struct lbox_http *h)
{
  struct lbox_err err;
  struct lbox_http_options o = {.method = "GET", .url = url_of("/echo"), .max_body = 1};
  if (lbox_http_start(engine, &o, &err) || err.rc != LBOX_EFORK || !strstr(err.text, "process"))
    return 1;
  if (lbox_engine_step(engine, 1000))
    return 2;
  lbox_http_cancel(h);
  if (lbox_http_done(h))
    return 3;
  lbox_http_consumed(h, true);
  lbox_http_unref(h);
  close_engine();
  return 0;
}

static void test_a_forked_child_is_refused_and_its_parent_goes_on(void)
{
  int status = -1;
  lbox_engine_pollfd(engine);
  struct lbox_http *h =
      start((struct lbox_http_options){.stream = true, .max_body = BIG_SIZE}, "/big");
  while (lbox_buf_len(lbox_http_body(h)) == 0)
    turn();
  turn_for(50); /* by now it is paused */
  pid_t child = fork();
  if (child == 0)
    _exit(use_in_child(h));
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK_INT(status, 0);
  size_t total = 0;
  for (int64_t end = lbox_now_us() + PATIENCE_US; lbox_now_us() < end && !lbox_http_done(h);) {
    total += lbox_buf_len(lbox_http_body(h));
    lbox_buf_consume(lbox_http_body(h), lbox_buf_len(lbox_http_body(h)));
    lbox_http_consumed(h, true);
    turn();
  }
  total += lbox_buf_len(lbox_http_body(h));
  CHECK_INT(total, BIG_SIZE);
  lbox_http_unref(h);
}

int main(void)
{
  static void (*const tests[])(void) = {
      test_work_is_done_once_when_a_reused_connection_closes,
      test_a_repeatable_request_survives_that,
      test_a_post_does_not_reuse_an_idle_connection,
      test_nothing_was_sent_when_there_was_no_one_to_send_to,
      test_bad_addresses,
      test_tls_with_a_server_that_has_none,
      test_cut_answers,
      test_a_reset_while_sending,
      test_proxy,
      test_cancel_before_any_step,
      test_cancel_while_resolving,
      test_cancel_while_connecting,
      test_cancel_while_sending,
      test_cancel_while_waiting_for_the_answer,
      test_cancel_within_the_answer,
      test_cancel_while_paused_and_while_resuming,
      test_cancel_when_it_is_over,
      test_a_deadline_ends_the_wait,
      test_dropping_a_running_request_lets_it_run,
      test_closing_the_engine_ends_its_requests,
      test_when_libcurl_fails_all_requests_do_and_new_ones_work,
      test_a_forked_child_is_refused_and_its_parent_goes_on,
  };
  loopback_start(&server);
  int fds = check_open_fds();
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    open_engine();
    tests[i]();
    close_engine();
    /* A resolver thread that was left behind closes its end when it is done. */
    for (int wait = 0; wait < 5000 && check_open_fds() != fds; wait++)
      usleep(1000);
    CHECK_INT(check_open_fds(), fds);
  }
  loopback_stop(&server);
  return check_summary();
}
