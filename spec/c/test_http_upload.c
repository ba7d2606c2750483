/* Requests whose body is made of parts: files that are read while they are sent. */
#include "http_support.h"

#include <fcntl.h>
#include <sys/stat.h>

static char path[] = "/var/tmp/lbox-upload-XXXXXX";
static const struct lbox_part parts[] = {
    {.name = "paths", .text = "/tmp/a", .text_len = 6},
    {.name = "files", .path = path, .filename = "a"},
};

static struct lbox_http_options upload(void)
{
  return (struct lbox_http_options){.method = "POST", .parts = parts, .n_parts = 2};
}

static void write_file(size_t size)
{
  int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
  for (size_t i = 0; i < size / 1000; i++) {
    char line[1000];
    memset(line, 'a' + (int)(i % 26), sizeof line);
    CHECK(write(fd, line, sizeof line) == sizeof line);
  }
  close(fd);
}

static void test_the_body_is_that_of_the_parts(void)
{
  write_file(300 * 1000);
  struct lbox_http_options o = upload();
  o.max_body = 1000 * 1000;
  struct lbox_http *h = run(o, "/echo");
  CHECK_INT(lbox_http_failure(h), LBOX_HTTP_OK);
  const struct lbox_buf *b = lbox_http_body(h);
  CHECK_INT(lbox_buf_len(b), lbox_http_body_size(h));
  CHECK_INT(lbox_http_body_sent(h), lbox_http_body_size(h));
  static const char before[] = "\r\nContent-Type: application/octet-stream\r\n\r\n";
  const char *body = b->base + b->start;
  const char *file = memmem(body, lbox_buf_len(b), before, strlen(before));
  file = file ? file + strlen(before) : body;
  bool same = true;
  for (int i = 0; i < 300 * 1000; i++)
    same = same && file[i] == 'a' + i / 1000 % 26;
  CHECK(same);
  CHECK(memcmp(file + 300 * 1000, "\r\n--lbox-", 9) == 0);
  lbox_http_unref(h);

  h = run(upload(), "/head");
  const struct lbox_buf *head = lbox_http_body(h);
  static const char type[] = "\r\nContent-Type: multipart/form-data; boundary=lbox-";
  CHECK(memmem(head->base + head->start, lbox_buf_len(head), type, strlen(type)) != NULL);
  CHECK(!memmem(head->base + head->start, lbox_buf_len(head), "Expect", 6));
  lbox_http_unref(h);
}

static void test_it_is_sent_once_when_a_reused_connection_closes(void)
{
  write_file(300 * 1000);
  for (int stream = 0; stream < 2; stream++) {
    warm_up();
    int before = atomic_load(&server.shared->executions);
    struct lbox_http_options o = upload();
    o.stream = stream;
    struct lbox_http *h = run(o, "/work-then-close");
    CHECK_INT(atomic_load(&server.shared->executions), before + 1);
    check_failed_as(h, LBOX_HTTP_REWIND, true);
    lbox_http_unref(h);
  }
}

/* Connections made so far, once the server has taken all of them. */
static int settled_connections(void)
{
  int connections;
  do {
    connections = atomic_load(&server.shared->connections);
    turn_for(200);
  } while (atomic_load(&server.shared->connections) != connections);
  return connections;
}

static void test_a_file_that_cannot_be_read_makes_no_connection(void)
{
  int connections = settled_connections();
  unlink(path);
  struct lbox_http *h = start(upload(), "/echo");
  CHECK(lbox_http_done(h));
  CHECK_INT(lbox_engine_ready(engine), lbox_http_id(h));
  check_failed_as(h, LBOX_HTTP_FILE, false);
  CHECK(strstr(lbox_http_failure_text(h), path) != NULL);
  CHECK_INT(settled_connections(), connections);
  lbox_http_unref(h);
}

/* The server never gets all of it. */
static void test_a_file_that_changes_while_it_is_sent(void)
{
  static const off_t sizes[] = {5 * 1000 * 1000, 40 * 1000 * 1000};
  for (int i = 0; i < 2; i++) {
    write_file(20 * 1000 * 1000);
    struct lbox_http *h = start(upload(), "/work-then-close"); /* works once it has all */
    int before = atomic_load(&server.shared->executions);
    while (lbox_http_body_sent(h) == 0)
      turn();
    CHECK(truncate(path, sizes[i]) == 0);
    finish(h);
    check_failed_as(h, LBOX_HTTP_FILE, true);
    CHECK(strstr(lbox_http_failure_text(h), "changed while it was sent") != NULL);
    CHECK(lbox_http_body_sent(h) < lbox_http_body_size(h));
    turn_for(50);
    CHECK_INT(atomic_load(&server.shared->executions), before);
    lbox_http_unref(h);
  }
}

static void test_there_is_news_at_a_bounded_rate(void)
{
  write_file(100 * 1000 * 1000);
  int64_t began = lbox_now_us();
  struct lbox_http *h = start(upload(), "/head");
  int news = 0;
  while (!lbox_http_done(h)) {
    lbox_engine_step(engine, 20);
    while (lbox_engine_ready(engine))
      news++;
  }
  int64_t ms = (lbox_now_us() - began) / 1000;
  CHECK(news >= 2);
  CHECK(news <= ms / 50 + 4); /* the first, the headers, the answer, the end */
  lbox_http_unref(h);
}

static void test_cancel_closes_the_file(void)
{
  write_file(20 * 1000 * 1000);
  int fds = check_open_fds();
  struct lbox_http *h = start(upload(), "/echo");
  while (lbox_http_body_sent(h) == 0)
    turn();
  lbox_http_cancel(h);
  CHECK(check_open_fds() <= fds);
  check_failed_as(h, LBOX_HTTP_CANCELLED, true);
  lbox_http_unref(h);
}

int main(void)
{
  static void (*const tests[])(void) = {
      test_the_body_is_that_of_the_parts,
      test_it_is_sent_once_when_a_reused_connection_closes,
      test_a_file_that_cannot_be_read_makes_no_connection,
      test_a_file_that_changes_while_it_is_sent,
      test_there_is_news_at_a_bounded_rate,
      test_cancel_closes_the_file,
  };
  close(mkstemp(path));
  loopback_start(&server);
  int fds = check_open_fds();
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    open_engine();
    tests[i]();
    close_engine();
    CHECK_INT(check_open_fds(), fds);
  }
  unlink(path);
  loopback_stop(&server);
  return check_summary();
}
