#include "core/sse.h"

#include <string.h>

static bool is_space(char c)
{
  return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' || c == '\n';
}

static bool is_residue(char c)
{
  return c == '\\' || c == '|' || c == '/' || c == '-' || is_space(c);
}

/* Removes ESC [ digits and semicolons, letter; returns the new length. */
static size_t strip_escapes(char *s, size_t n)
{
  size_t out = 0;
  for (size_t i = 0; i < n;) {
    if (s[i] == '\033' && i + 1 < n && s[i + 1] == '[') {
      size_t end = i + 2;
      while (end < n && ((s[end] >= '0' && s[end] <= '9') || s[end] == ';'))
        end++;
      if (end < n && ((s[end] >= 'a' && s[end] <= 'z') || (s[end] >= 'A' && s[end] <= 'Z'))) {
        i = end + 1;
        continue;
      }
    }
    s[out++] = s[i++];
  }
  return out;
}

static bool has_prefix(const char *s, size_t n, const char *prefix, size_t prefix_len)
{
  return n >= prefix_len && memcmp(s, prefix, prefix_len) == 0;
}

/* Takes up one line of n bytes at offset `at`. True when it completes an event. */
static bool take_line(struct lbox_sse *p, char *base, size_t at, size_t n)
{
  char *s = base + at;
  if (n > 0 && s[n - 1] == '\r')
    n--;
  if (memchr(s, '\033', n))
    n = strip_escapes(s, n);
  while (n > 0 && is_residue(*s)) {
    s++;
    n--;
  }
  at = (size_t)(s - base);
  if (n == 0)
    return p->has_event && p->has_data;
  if (has_prefix(s, n, "data: ", 6)) {
    p->data = at + 6;
    p->data_len = n - 6;
    p->has_data = true;
  } else if (has_prefix(s, n, "event: ", 7)) {
    s += 7;
    n -= 7;
    while (n > 0 && is_space(*s)) {
      s++;
      n--;
    }
    while (n > 0 && is_space(s[n - 1]))
      n--;
    p->event = (size_t)(s - base);
    p->event_len = n;
    p->has_event = true;
  }
  return false;
}

static bool is_blank(const char *s, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    if (!is_space(s[i]))
      return false;
  }
  return true;
}

static bool dispatch(struct lbox_sse *p, struct lbox_buf *b, struct lbox_sse_event *out)
{
  const char *base = lbox_buf_data(b);
  *out = (struct lbox_sse_event){base + p->event, base + p->data, p->event_len, p->data_len};
  lbox_buf_consume(b, p->line);
  *p = (struct lbox_sse){0};
  return true;
}

bool lbox_sse_next(struct lbox_sse *p, struct lbox_buf *b, bool eof, struct lbox_sse_event *out)
{
  size_t len = lbox_buf_len(b);
  if (len == 0)
    return false;
  char *base = lbox_buf_data(b);
  for (;;) {
    const char *newline = memchr(base + p->searched, '\n', len - p->searched);
    if (!newline) {
      p->searched = len;
      break;
    }
    size_t start = p->line;
    p->line = p->searched = (size_t)(newline - base) + 1;
    if (take_line(p, base, start, p->line - 1 - start))
      return dispatch(p, b, out);
    if (!p->has_event && !p->has_data) {
      lbox_buf_consume(b, p->line);
      *p = (struct lbox_sse){0};
      len = lbox_buf_len(b);
      if (len == 0)
        return false;
      base = lbox_buf_data(b);
    }
  }
  if (eof && p->line < len) {
    size_t start = p->line;
    p->line = len;
    take_line(p, base, start, len - start);
  }
  if (p->has_event && p->has_data && (eof || is_blank(base + p->line, len - p->line)))
    return dispatch(p, b, out);
  return false;
}
