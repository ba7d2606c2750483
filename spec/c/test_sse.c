/* The parser of agent streams. Well-formed input says the same wherever it is cut. */
#include "core/sse.h"

#include "parser_support.h"

#define ESC "\033"

struct whole {
  const char *what, *input;
  size_t len;
  const char *expected; /* "[name] data\n" per event */
  size_t expected_len;
};

#define WHOLE(what, input, expected)                                                               \
  {                                                                                                \
    what, input, sizeof(input) - 1, expected, sizeof(expected) - 1                                 \
  }

/* Each is fed in one piece, cut at every byte, and byte by byte. */
static const struct whole wholes[] = {
    WHOLE("nothing", "", ""),
    WHOLE("blank lines only", "\n\n \n\r\n\t\n", ""),
    WHOLE("one event", "event: text\ndata: {\"text\":\"hi\"}\n\n", "[text] {\"text\":\"hi\"}\n"),
    WHOLE("two events", "event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", "[a] 1\n[b] 2\n"),
    WHOLE("several blank lines between", "event: a\ndata: 1\n\n\n\nevent: b\ndata: 2\n\n",
          "[a] 1\n[b] 2\n"),
    WHOLE("CRLF", "event: a\r\ndata: 1\r\n\r\nevent: b\r\ndata: 2\r\n\r\n", "[a] 1\n[b] 2\n"),
    WHOLE("comments and other fields", ": hi\nid: 7\nevent: a\n: hi\nretry: 5\ndata: 1\n:\n\n",
          "[a] 1\n"),
    WHOLE("no blank line at the end", "event: a\ndata: 1\n", "[a] 1\n"),
    WHOLE("no newline at the end", "event: a\ndata: {\"x\":1}", "[a] {\"x\":1}\n"),
    WHOLE("a carriage return at the end", "event: a\ndata: 1\r", "[a] 1\n"),
    WHOLE("an event without data at the end", "event: a\ndata: 1\n\nevent: b\n", "[a] 1\n"),
    WHOLE("data without an event", "data: 1\n\ndata: 2\n\n", ""),
    WHOLE("data before its event", "data: 1\nevent: a\n\n", "[a] 1\n"),
    WHOLE("an event without data is replaced", "event: a\nevent: b\ndata: 1\n\n", "[b] 1\n"),
    WHOLE("a blank line inside an event", "event: a\n\ndata: 1\n\n", "[a] 1\n"),
    WHOLE("fields need the space", "event:a\ndata:1\n\nevent: b\ndata:1\ndata: 2\n\n", "[b] 2\n"),
    WHOLE("the name is trimmed, the data is not", "event: \t a \t\ndata:  1 \n\n", "[a]  1 \n"),
    WHOLE("an empty name or empty data is none", "event: \n\nevent: a\ndata: \n\ndata: 2\n",
          "[a] 2\n"),
    WHOLE("data that looks like fields", "event: a\ndata: event: b data: 2\n\n",
          "[a] event: b data: 2\n"),
    WHOLE("escapes before lines", ESC "[2K" ESC "[1Gevent: a\n" ESC "[0;31mdata: 1" ESC "[0m\n\n",
          "[a] 1\n"),
    WHOLE("an escape in the middle of a field",
          "eve" ESC "[1mnt: a\nda" ESC "[Kta: {" ESC "[2J}\n\n", "[a] {}\n"),
    WHOLE("an escape as the blank line", "event: a\ndata: 1\n" ESC "[2K\nevent: b\ndata: 2\n\n",
          "[a] 1\n[b] 2\n"),
    WHOLE("an escape after the carriage return", "event: a\r" ESC "[K\ndata: 1\r" ESC "[K\n\n",
          "[a] 1\n"),
    WHOLE("an escape between two", ESC ESC "[2K[2Kevent: a\n\nevent: b\ndata: 1\n\n", "[b] 1\n"),
    WHOLE("what is no such escape stays", "event: a\ndata: " ESC "]0;t" ESC "[?25h" ESC "\n\n",
          "[a] " ESC "]0;t" ESC "[?25h" ESC "\n"),
    WHOLE("an escape that never ends", "event: a\ndata: 1\n\n" ESC "[12;", "[a] 1\n"),
    WHOLE("spinner residue", "\\|/- event: a\n/ \t-data: 1\n|\nevent: b\n-- data: 2\n\\ \n",
          "[a] 1\n[b] 2\n"),
    WHOLE("residue and escapes mixed", "|" ESC "[2K/" ESC "[1G-event: a\n" ESC "[Kdata: 1\n\n",
          "[a] 1\n"),
    WHOLE("characters of several bytes",
          "event: text\ndata: {\"text\":\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"}\n\n",
          "[text] {\"text\":\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"}\n"),
    WHOLE("bytes that are not UTF-8", "event: a\ndata: \xff\xc3\xf0\x80\n\n",
          "[a] \xff\xc3\xf0\x80\n"),
    WHOLE("NUL bytes",
          "event: a\0b\ndata: 1\0"
          "2\n\n",
          "[a\0b] 1\0"
          "2\n"),
};

enum { MAX_CHUNKS = 8 };

struct pieces {
  const char *what;
  const char *chunks[MAX_CHUNKS];
  const char
      *expected; /* with ";\n" at the end of every chunk and the events of the end after it */
};

/* Where it matters what comes with which chunk. */
static const struct pieces cuts[] = {
    {"the event is there with its blank line",
     {"event: a\ndata: 1\n\nevent: b\ndata: 2\n", "\n"},
     "[a] 1\n[b] 2\n;\n;\n"},
    {"a data line that is not over is waited for", {"event: a\ndata: 1", "2\n"}, ";\n[a] 12\n;\n"},
    {"a late blank line does no harm", {"event: a\ndata: 1\n", "\n"}, "[a] 1\n;\n;\n"},
    {"blanks and escapes do not hold an event back",
     {"event: a\ndata: 1\n \t\r", "\n", "event: b\ndata: 2\n" ESC "[2K ", "\n"},
     "[a] 1\n;\n;\n[b] 2\n;\n;\n"},
    {"the start of another line does", {"event: a\ndata: 1\n:", "\n"}, ";\n[a] 1\n;\n"},
    {"half an escape does", {"event: a\ndata: 1\n" ESC "[2", "K"}, ";\n[a] 1\n;\n"},
    {"the last data line of a chunk wins", {"event: a\ndata: 1\ndata: 2\n\n"}, "[a] 2\n;\n"},
    {"over chunks the first one does",
     {"event: a\ndata: 1\n", "data: 2\n\n", "event: b\n"},
     "[a] 1\n;\n;\n[b] 2\n;\n"},
    {"the stream of the other SDKs' tests",
     {"event: run_start\ndata: {\"run_id\":\"r1\"}\n\n", "\033[2Kevent: text\ndata: {\"te",
      "xt\":\"hello\"}\n\nevent: thinking\nda", "ta: {\"text\":\"hm\"}\n\n",
      "event: tool\ndata: {\"name\":\"Bash\",\"input\":{},\"id\":\"t1\"}\n\n",
      "event: done\ndata: {\"output\":\"hello\"}\n\n"},
     "[run_start] {\"run_id\":\"r1\"}\n;\n;\n[text] {\"text\":\"hello\"}\n;\n"
     "[thinking] {\"text\":\"hm\"}\n;\n[tool] {\"name\":\"Bash\",\"input\":{},\"id\":\"t1\"}\n;\n"
     "[done] {\"output\":\"hello\"}\n;\n"},
};

static void drain(struct lbox_sse *p, struct lbox_buf *b, bool eof, struct log *log)
{
  struct lbox_sse_event event;
  while (lbox_sse_next(p, b, eof, &event)) {
    fputc('[', log->file);
    fwrite(event.name, 1, event.name_len, log->file);
    fputs("] ", log->file);
    fwrite(event.data, 1, event.data_len, log->file);
    fputc('\n', log->file);
  }
}

/* Feeds the first `cut` bytes in pieces of `step`, then the rest in one. */
static void feed_cut(struct guarded *g, const struct whole *w, size_t cut, size_t step)
{
  struct lbox_sse p = {0};
  struct log log;
  char how[64];
  log_begin(&log);
  guarded_reset(g);
  for (size_t at = 0; at < w->len;) {
    size_t n = at < cut ? step : w->len - at;
    guarded_feed(g, w->input + at, n);
    drain(&p, &g->buf, false, &log);
    at += n;
  }
  drain(&p, &g->buf, true, &log);
  struct lbox_sse_event event;
  CHECK(!lbox_sse_next(&p, &g->buf, true, &event));
  snprintf(how, sizeof how, "the first %zu bytes by %zu", cut, step);
  log_end(&log, w->what, how, w->expected, w->expected_len);
}

static void feed_chunks(struct guarded *g, const struct pieces *c)
{
  struct lbox_sse p = {0};
  struct log log;
  log_begin(&log);
  guarded_reset(g);
  for (int i = 0; i < MAX_CHUNKS && c->chunks[i]; i++) {
    guarded_feed(g, c->chunks[i], strlen(c->chunks[i]));
    drain(&p, &g->buf, false, &log);
    fputs(";\n", log.file);
  }
  drain(&p, &g->buf, true, &log);
  log_end(&log, c->what, "as it was cut", c->expected, strlen(c->expected));
}

/* `lines` over and over, much more than the buffer holds, then the rest of an event. */
static void useless_lines_never_fill_the_buffer(const char *first, const char *lines,
                                                const char *rest, const char *expected)
{
  struct lbox_buf b;
  struct lbox_sse p = {0};
  struct log log;
  log_begin(&log);
  lbox_buf_init(&b, 64 * 1024);
  bool room = lbox_buf_append(&b, first, strlen(first));
  for (int i = 0; i < 20000 && room; i++) {
    room = lbox_buf_append(&b, lines, strlen(lines));
    drain(&p, &b, false, &log);
  }
  room = room && lbox_buf_append(&b, rest, strlen(rest));
  drain(&p, &b, false, &log);
  CHECK(room);
  log_end(&log, "useless lines", lines, expected, strlen(expected));
  lbox_buf_free(&b);
}

/* An event as large as the buffer takes, in small pieces. */
static void large_event(void)
{
  enum { SIZE = 1 << 20 };
  struct lbox_buf b;
  struct lbox_sse p = {0};
  struct lbox_sse_event event;
  char piece[1000];
  lbox_buf_init(&b, 2 * SIZE);
  memset(piece, 'x', sizeof piece);
  bool ok = lbox_buf_append(&b, "event: text\ndata: ", 18);
  for (int i = 0; i < SIZE / 1000 && ok; i++)
    ok = lbox_buf_append(&b, piece, sizeof piece) && !lbox_sse_next(&p, &b, false, &event);
  ok = ok && lbox_buf_append(&b, "\n\n", 2) && lbox_sse_next(&p, &b, false, &event);
  CHECK(ok && event.data_len == SIZE / 1000 * 1000 && event.name_len == 4);
  lbox_buf_free(&b);
}

int main(void)
{
  struct guarded g;
  guarded_open(&g, 4096);
  for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
    const struct whole *w = &wholes[i];
    for (size_t cut = 0; cut <= w->len; cut++)
      feed_cut(&g, w, cut, cut ? cut : 1);
    feed_cut(&g, w, w->len, 1);
  }
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
    feed_chunks(&g, &cuts[i]);
  useless_lines_never_fill_the_buffer("", ": ping\n", "event: a\ndata: 1\n\n", "[a] 1\n");
  useless_lines_never_fill_the_buffer("event: a\n", ": ping\n\n", "data: 1\n\n", "[a] 1\n");
  useless_lines_never_fill_the_buffer("", "data: 0\n\n", "data: 1\nevent: a\n\n", "[a] 1\n");
  useless_lines_never_fill_the_buffer("event: a\n", "event: b\ndata: 0\n:", "\ndata: 1\n\n",
                                      "[b] 1\n");
  large_event();
  return check_summary();
}
