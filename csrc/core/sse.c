#include "core/sse.h"

#include <string.h>

/* Lines of no use are let go of once they take this much. */
enum { MAX_WASTE = 4096 };

static bool is_space(char c)
{
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/* What a spinner leaves at the start of a line. */
static bool is_residue(char c)
{
  return c == '\\' || c == '|' || c == '/' || c == '-' || is_space(c);
}

/* Length of the sequence ESC [ digits and semicolons, letter that s begins with, or 0. */
static size_t escape_len(const char *s, size_t n)
{
  if (n < 3 || s[0] != '\033' || s[1] != '[')
    return 0;
  size_t i = 2;
  while (i < n && ((s[i] >= '0' && s[i] <= '9') || s[i] == ';'))
    i++;
  bool letter = i < n && ((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z'));
  return letter ? i + 1 : 0;
}

/* Removes the escape sequences from s; returns the new length. */
static size_t strip_escapes(char *s, size_t n)
{
  size_t out = 0;
  for (size_t i = 0; i < n;) {
    size_t escape = escape_len(s + i, n - i);
    if (escape)
      i += escape;
    else
      s[out++] = s[i++];
  }
  return out;
}

/* Whether nothing shows in s: it cannot be the start of a line that matters. */
static bool is_blank(const char *s, size_t n)
{
  for (size_t i = 0; i < n;) {
    size_t escape = escape_len(s + i, n - i);
    if (!escape && !is_space(s[i]))
      return false;
    i += escape ? escape : 1;
  }
  return true;
}

static bool has_prefix(const char *s, size_t n, const char *prefix, size_t prefix_len)
{
  return n >= prefix_len && memcmp(s, prefix, prefix_len) == 0;
}

static bool is_complete(const struct lbox_sse *p)
{
  return p->event.len > 0 && p->data.len > 0;
}

/* Takes up one line of n bytes at offset `at`. True for the blank line that ends an event. */
static bool take_line(struct lbox_sse *p, char *base, size_t at, size_t n)
{
  char *s = base + at;
  if (n > 0 && memchr(s, '\033', n))
    n = strip_escapes(s, n);
  if (n > 0 && s[n - 1] == '\r')
    n--;
  while (n > 0 && is_residue(*s)) {
    s++;
    n--;
  }
  if (n == 0)
    return is_complete(p);
  at = (size_t)(s - base);
  if (has_prefix(s, n, "data: ", 6)) {
    p->data = (struct lbox_sse_slice){at + 6, n - 6};
  } else if (has_prefix(s, n, "event: ", 7)) {
    at += 7;
    n -= 7;
    while (n > 0 && is_space(base[at])) {
      at++;
      n--;
    }
    while (n > 0 && is_space(base[at + n - 1]))
      n--;
    p->event = (struct lbox_sse_slice){at, n};
  }
  return false;
}

/* Lets go of the lines before the current one. What is kept of an unfinished event moves up to it,
   so that lines of no use (comments, data without an event) never fill the buffer. */
static void forget_lines(struct lbox_sse *p, struct lbox_buf *b)
{
  size_t kept = p->event.len + p->data.len;
  if (kept > 0 && (p->line < MAX_WASTE + kept || p->line < 2 * kept))
    return;
  char *base = lbox_buf_data(b);
  bool event_first = p->event.at < p->data.at;
  struct lbox_sse_slice *first = event_first ? &p->event : &p->data;
  struct lbox_sse_slice *last = event_first ? &p->data : &p->event;
  size_t gone = p->line - kept;
  memmove(base + p->line - last->len, base + last->at, last->len);
  memmove(base + gone, base + first->at, first->len);
  first->at = 0;
  last->at = first->len;
  p->line = p->searched = kept;
  lbox_buf_consume(b, gone);
}

static bool dispatch(struct lbox_sse *p, struct lbox_buf *b, struct lbox_sse_event *out)
{
  char *base = lbox_buf_data(b);
  *out = (struct lbox_sse_event){base + p->event.at, base + p->data.at, p->event.len, p->data.len};
  lbox_buf_consume(b, p->line);
  *p = (struct lbox_sse){0};
  return true;
}

bool lbox_sse_next(struct lbox_sse *p, struct lbox_buf *b, bool eof, struct lbox_sse_event *out)
{
  size_t len;
  while ((len = lbox_buf_len(b)) > p->searched) {
    char *base = lbox_buf_data(b);
    const char *newline = memchr(base + p->searched, '\n', len - p->searched);
    if (!newline) {
      p->searched = len;
      break;
    }
    size_t start = p->line;
    p->line = p->searched = (size_t)(newline - base) + 1;
    if (take_line(p, base, start, p->line - 1 - start))
      return dispatch(p, b, out);
    forget_lines(p, b);
  }
  if (len == 0)
    return false;
  char *base = lbox_buf_data(b);
  if (eof && p->line < len) {
    size_t start = p->line;
    p->line = len;
    take_line(p, base, start, len - start);
  }
  /* Nothing more is here: an event that only lacks its blank line need not wait for it. */
  return is_complete(p) && is_blank(base + p->line, len - p->line) && dispatch(p, b, out);
}

/* --- text events ------------------------------------------------------------------------------ */

static bool is_text(const struct lbox_sse_event *event)
{
  return (event->name_len == 4 && memcmp(event->name, "text", 4) == 0) ||
         (event->name_len == 8 && memcmp(event->name, "thinking", 8) == 0);
}

/* What stands for \c in JSON, 0 if that is not one character. */
static char unescaped(char c)
{
  static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  const char *at = c ? strchr(escapes, c) : NULL;
  return at ? meanings[at - escapes] : '\0';
}

const char *lbox_sse_text(struct lbox_sse_event *event, size_t *len)
{
  static const char start[] = "{\"text\":\"", end[] = "\"}";
  enum { START = sizeof start - 1, END = sizeof end - 1 };
  if (!is_text(event) || event->data_len < START + END || memcmp(event->data, start, START) != 0 ||
      memcmp(event->data + event->data_len - END, end, END) != 0)
    return NULL;
  char *text = event->data + START;
  size_t n = event->data_len - START - END, escapes = 0;
  for (size_t i = 0; i < n; i++) {
    if (text[i] == '"' || (unsigned char)text[i] < ' ')
      return NULL;
    if (text[i] == '\\' && (++escapes, ++i >= n || !unescaped(text[i])))
      return NULL;
  }
  *len = n - escapes;
  for (size_t from = 0, to = 0; escapes > 0 && from < n; from++, to++)
    text[to] = text[from] == '\\' ? unescaped(text[++from]) : text[from];
  return text;
}
