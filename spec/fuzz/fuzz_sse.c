/*
** The parser of agent streams, three ways. From the input as a recipe a well-formed stream is made,
** with everything a terminal may leave in it, and cut anywhere: its events must come out, all and
** in order. Then the input itself is fed as the stream: whatever it is, events lie in the buffer,
** have no line break in them, and the parser ends. Then it is a text, which must come out of its
** JSON as it was, and what is no such JSON is left alone.
*/
#include "core/sse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_EVENTS = 64, MAX_TEXT = 64 };

/* Bytes of the input, one by one; zeros once it is used up. */
struct recipe {
  const uint8_t *at, *end;
};

static uint8_t take(struct recipe *r)
{
  return r->at < r->end ? *r->at++ : 0;
}

static void require(bool ok)
{
  if (!ok)
    abort();
}

struct expected {
  char name[MAX_TEXT + 1], data[MAX_TEXT + 1];
  size_t name_len, data_len;
};

static const char *const noise[] = {"",    "\033[2K", "|", "\\ ", "/-\033[0;31m",
                                    " \t", "\033[K",  "-", "\r",  "\033[1;2H"};
static const char *const lines[] = {"",          ": comment\n", "id: 7\n", "retry: 1\r\n",
                                    "event:x\n", "data:x\n"};

static void put(struct lbox_buf *b, const char *text)
{
  require(lbox_buf_append(b, text, strlen(text)));
}

static const char *pick(struct recipe *r, const char *const *list, size_t n)
{
  return list[take(r) % n];
}

/* Up to `max` bytes, at least one, that no line break or escape is made of and no trimming touches.
 */
static size_t text(struct recipe *r, char *out, size_t max, bool any)
{
  size_t n = 1 + take(r) % max;
  for (size_t i = 0; i < n; i++) {
    uint8_t c = take(r);
    bool plain = any ? c != '\n' && c != '\r' && c != '\033' : c > ' ' && c < 0x7f;
    out[i] = plain ? (char)c : 'x';
  }
  return n;
}

static void make_event(struct recipe *r, struct lbox_buf *b, struct expected *e)
{
  static const size_t noises = sizeof noise / sizeof *noise, others = sizeof lines / sizeof *lines;
  const char *end = take(r) % 2 ? "\r\n" : "\n";
  e->name_len = text(r, e->name, MAX_TEXT, false);
  e->data_len = text(r, e->data, MAX_TEXT, true);
  put(b, pick(r, lines, others));
  put(b, pick(r, noise, noises));
  put(b, "event: ");
  require(lbox_buf_append(b, e->name, e->name_len));
  put(b, end);
  put(b, pick(r, lines, others));
  put(b, pick(r, noise, noises));
  put(b, "data: ");
  require(lbox_buf_append(b, e->data, e->data_len));
  put(b, take(r) % 4 == 0 ? "\033[0m" : "");
  put(b, end);
  put(b, pick(r, noise, noises));
  put(b, end);
}

static void well_formed(const uint8_t *bytes, size_t n)
{
  struct recipe r = {bytes, bytes + n};
  struct lbox_buf whole, b;
  struct expected events[MAX_EVENTS];
  size_t count = take(&r) % (MAX_EVENTS + 1), seen = 0;
  lbox_buf_init(&whole, 1 << 20);
  lbox_buf_init(&b, 1 << 20);
  for (size_t i = 0; i < count; i++)
    make_event(&r, &whole, &events[i]);

  struct lbox_sse p = {0};
  size_t len = lbox_buf_len(&whole);
  for (size_t at = 0; at <= len;) {
    bool eof = at == len;
    struct lbox_sse_event event;
    while (lbox_sse_next(&p, &b, eof, &event)) {
      require(seen < count);
      const struct expected *e = &events[seen++];
      require(event.name_len == e->name_len && memcmp(event.name, e->name, e->name_len) == 0);
      require(event.data_len == e->data_len && memcmp(event.data, e->data, e->data_len) == 0);
    }
    if (eof)
      break;
    size_t piece = 1 + take(&r) % 40;
    piece = piece < len - at ? piece : len - at;
    require(lbox_buf_append(&b, lbox_buf_data(&whole) + at, piece));
    at += piece;
  }
  require(seen == count);
  lbox_buf_free(&whole);
  lbox_buf_free(&b);
}

static void anything(const uint8_t *bytes, size_t n)
{
  struct lbox_buf b;
  struct lbox_sse p = {0};
  struct lbox_sse_event event;
  size_t given = 0, step = n ? 1 + bytes[0] % 32 : 1;
  lbox_buf_init(&b, 1 << 20);
  for (size_t at = 0; at < n; at += step) {
    require(lbox_buf_append(&b, bytes + at, step < n - at ? step : n - at));
    while (lbox_sse_next(&p, &b, false, &event)) {
      require(event.name_len > 0 && !memchr(event.name, '\n', event.name_len));
      require(event.data_len > 0 && !memchr(event.data, '\n', event.data_len));
      require(event.name >= b.base && event.name + event.name_len <= b.base + b.cap);
      require(event.data >= b.base && event.data + event.data_len <= b.base + b.cap);
      given += event.name_len + event.data_len;
    }
    require(given <= n);
  }
  require(!lbox_sse_next(&p, &b, true, &event) || !lbox_sse_next(&p, &b, true, &event));
  lbox_buf_free(&b);
}

/* The input as the text of a text event, each character escaped where it must be or may be. */
static void texts(const uint8_t *bytes, size_t n)
{
  static const char escapes[] = "\"\\/\b\f\n\r\t", letters[] = "\"\\/bfnrt";
  struct lbox_buf b;
  lbox_buf_init(&b, 1 << 20);
  put(&b, "{\"text\":\"");
  bool plain = true; /* control characters have no short escape, and stand there as they are */
  for (size_t i = 0; i < n; i++) {
    const char *at = bytes[i] ? strchr(escapes, bytes[i]) : NULL;
    char escaped[2] = {'\\', at ? letters[at - escapes] : 0};
    require(lbox_buf_append(&b, at ? escaped : (const char *)&bytes[i], at ? 2 : 1));
    plain = plain && (at || bytes[i] >= ' ');
  }
  put(&b, "\"}");
  struct lbox_sse_event event = {"thinking", lbox_buf_data(&b), 8, lbox_buf_len(&b)};
  size_t len = 0;
  const char *text = lbox_sse_text(&event, &len);
  require(plain ? text && len == n && memcmp(text, bytes, n) == 0 : !text);
  lbox_buf_free(&b);

  char *copy = malloc(n + 1);
  require(copy != NULL);
  memcpy(copy, bytes, n);
  event = (struct lbox_sse_event){"text", copy, 4, n};
  text = lbox_sse_text(&event, &len);
  require(text ? text > copy && text + len < copy + n : memcmp(copy, bytes, n) == 0);
  free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
  well_formed(bytes, n);
  anything(bytes, n);
  texts(bytes, n);
  return 0;
}
