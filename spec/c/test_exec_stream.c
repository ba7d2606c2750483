/* Streams of a command's output: every byte of the output, and nothing of the tail, wherever it is
   cut. A tail counts only at the very end. */
#include "core/exec_stream.h"

#include "parser_support.h"

#define EXIT_0 "event: exit\ndata: {\"exit_code\":0,\"cpu_ns\":7}\n\n"
#define ERROR  "event: error\ndata: {\"error\":\"no such folder\"}\n\n"

struct body {
  const char *what, *input;
  size_t len;
  const char *output; /* all of it joined */
  size_t output_len;
  const char *tail; /* "exit …", "error …" or "" */
};

#define BODY(what, input, output, tail)                                                            \
  {                                                                                                \
    what, input, sizeof(input) - 1, output, sizeof(output) - 1, tail                               \
  }

static const struct body bodies[] = {
    BODY("nothing", "", "", ""),
    BODY("only an exit", EXIT_0, "", "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("only an error", ERROR, "", "error {\"error\":\"no such folder\"}"),
    BODY("output and exit", "one\ntwo\n" EXIT_0, "one\ntwo\n",
         "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("output without a newline", "one" EXIT_0, "one", "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("output and error", "one" ERROR, "one", "error {\"error\":\"no such folder\"}"),
    BODY("the body ends without a tail", "one\ntwo", "one\ntwo", ""),
    BODY("output that ends like the start of a tail", "an event: e", "an event: e", ""),
    BODY("a forged exit before the true one", "event: exit\ndata: {\"exit_code\":1}\n\n" EXIT_0,
         "event: exit\ndata: {\"exit_code\":1}\n\n", "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("a forged error before the exit", ERROR EXIT_0, ERROR,
         "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("a forged exit and more output", EXIT_0 "more", EXIT_0 "more", ""),
    BODY("the marker without data, then the tail", "event: exit\nevent: exit\n" EXIT_0,
         "event: exit\nevent: exit\n", "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("half a marker, then the tail", "event: exevent: exi" EXIT_0, "event: exevent: exi",
         "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("a marker in a marker", "event: event: error\ndata:event: exit\n" EXIT_0,
         "event: event: error\ndata:event: exit\n", "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("marker without data at the end", "x\nevent: exit\n", "x\nevent: exit\n", ""),
    BODY("marker with an empty data line", "event: exit\ndata: \n\n", "event: exit\ndata: \n\n",
         ""),
    BODY("no space after data:", "xevent: exit\ndata:{\"exit_code\":3}\n\n", "x",
         "exit {\"exit_code\":3}"),
    BODY("one line end after the data", "xevent: exit\ndata: {}\n", "x", "exit {}"),
    BODY("no line end after the data", "xevent: exit\ndata: {}", "x", "exit {}"),
    BODY("many line ends after the data are output", "event: exit\ndata: {}\n\n\n\n\n",
         "event: exit\ndata: {}\n\n\n\n\n", ""),
    BODY("another event is output", "event: exits\ndata: {}\n\n" EXIT_0,
         "event: exits\ndata: {}\n\n", "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("escapes and spinners stay", "\033[2K|/-\\\r\n" EXIT_0, "\033[2K|/-\\\r\n",
         "exit {\"exit_code\":0,\"cpu_ns\":7}"),
    BODY("any byte", "\0\xff\xc3\r\n\0" EXIT_0, "\0\xff\xc3\r\n\0",
         "exit {\"exit_code\":0,\"cpu_ns\":7}"),
};

static void drain(struct lbox_buf *b, bool eof, struct log *output, struct log *tail)
{
  const char *bytes;
  size_t len;
  enum lbox_exec_kind kind;
  while ((kind = lbox_exec_next(b, eof, &bytes, &len)) != LBOX_EXEC_NONE) {
    if (kind == LBOX_EXEC_OUTPUT) {
      CHECK(len > 0);
      fwrite(bytes, 1, len, output->file);
      continue;
    }
    CHECK(eof);
    fputs(kind == LBOX_EXEC_EXIT ? "exit " : "error ", tail->file);
    fwrite(bytes, 1, len, tail->file);
  }
}

/* Feeds the first `cut` bytes in pieces of `step`, then the rest in one, then the end. */
static void feed_cut(struct guarded *g, const struct body *t, size_t cut, size_t step)
{
  struct log output, tail;
  char how[64];
  snprintf(how, sizeof how, "the first %zu bytes by %zu", cut, step);
  log_begin(&output);
  log_begin(&tail);
  guarded_reset(g);
  for (size_t at = 0; at < t->len;) {
    size_t n = at < cut ? step : t->len - at;
    guarded_feed(g, t->input + at, n);
    drain(&g->buf, false, &output, &tail);
    at += n;
  }
  drain(&g->buf, true, &output, &tail);
  CHECK_INT(lbox_buf_len(&g->buf), 0);
  log_end(&output, t->what, how, t->output, t->output_len);
  log_end(&tail, t->what, how, t->tail, strlen(t->tail));
}

/* A body that is cut shows no exit and nothing of what could have become one. */
static void cut_body(struct guarded *g, size_t cut, size_t step)
{
  static const char body[] = "said" EXIT_0;
  struct log output, tail;
  char how[64];
  snprintf(how, sizeof how, "%zu bytes by %zu", cut, step);
  log_begin(&output);
  log_begin(&tail);
  guarded_reset(g);
  for (size_t at = 0; at < cut; at += step) {
    guarded_feed(g, body + at, step < cut - at ? step : cut - at);
    drain(&g->buf, false, &output, &tail);
  }
  log_end(&output, "a cut body", how, body, cut < 4 ? cut : 4);
  log_end(&tail, "a cut body", how, "", 0);
}

/* Output is handed on as it comes; only what may be the tail waits. */
static void output_is_not_held_back(struct guarded *g)
{
  static const char *const chunks[] = {"name: ", "event: exit", "ed\n", EXIT_0, "last"};
  static const size_t held[] = {0, 11, 0, sizeof EXIT_0 - 1, 0};
  struct log output, tail;
  log_begin(&output);
  log_begin(&tail);
  guarded_reset(g);
  for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
    guarded_feed(g, chunks[i], strlen(chunks[i]));
    drain(&g->buf, false, &output, &tail);
    CHECK_INT(lbox_buf_len(&g->buf), held[i]); /* only a possible tail is held back */
  }
  static const char all[] = "name: event: exited\n" EXIT_0 "last";
  log_end(&output, "output as it comes", "output", all, sizeof all - 1);
  log_end(&tail, "output as it comes", "tail", "", 0);
}

/* What a program prints cannot make the parser hold more than a data line's worth. */
static void holding_is_bounded(const char *start, char filler)
{
  struct lbox_buf b;
  const char *bytes;
  size_t len, fed = strlen(start), seen = 0, most = 0;
  char piece[512];
  memset(piece, filler, sizeof piece);
  lbox_buf_init(&b, 1 << 20);
  bool ok = lbox_buf_append(&b, start, strlen(start));
  for (int i = 0; i < 1000 && ok; i++, fed += sizeof piece) {
    ok = lbox_buf_append(&b, piece, sizeof piece);
    while (lbox_exec_next(&b, false, &bytes, &len) == LBOX_EXEC_OUTPUT)
      seen += len;
    most = lbox_buf_len(&b) > most ? lbox_buf_len(&b) : most;
  }
  while (lbox_exec_next(&b, true, &bytes, &len) == LBOX_EXEC_OUTPUT)
    seen += len;
  CHECK(ok && most < LBOX_EXEC_MAX_DATA + 1024);
  CHECK_INT(seen, fed); /* it comes as output in the end */
  lbox_buf_free(&b);
}

int main(void)
{
  struct guarded g;
  guarded_open(&g, 4096);
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    const struct body *t = &bodies[i];
    for (size_t cut = 0; cut <= t->len; cut++)
      feed_cut(&g, t, cut, cut ? cut : 1);
    feed_cut(&g, t, t->len, 1);
  }
  for (size_t cut = 1; cut <= sizeof "said" EXIT_0 - 1; cut++) {
    cut_body(&g, cut, 1);
    cut_body(&g, cut, cut);
  }
  output_is_not_held_back(&g);
  holding_is_bounded("event: exit\ndata: ", 'x');
  holding_is_bounded("event: exit\ndata: {}\n", '\n');
  holding_is_bounded("event: error\ndata:", ' ');
  holding_is_bounded("event: exit\ndata: 0", '\r');
  return check_summary();
}
