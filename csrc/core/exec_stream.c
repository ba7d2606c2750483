#include "core/exec_stream.h"

#include <string.h>

/* Bytes of line ends after the data; a program that prints more was not a tail, and is not held. */
enum { MAX_LINE_ENDS = 4 };

enum match { NO, MAYBE, TAIL };

struct tail {
  enum lbox_exec_kind kind;
  size_t json, json_len; /* offset from the start of the candidate */
};

/* Whether the n bytes at s are, or can still become, `literal`; *at moves past it when they are. */
static enum match literal(const char *s, size_t n, size_t *at, const char *text)
{
  size_t len = strlen(text);
  size_t have = n - *at < len ? n - *at : len;
  if (memcmp(s + *at, text, have) != 0)
    return NO;
  if (have < len)
    return MAYBE;
  *at += len;
  return TAIL;
}

/* Judges the candidate that begins at s and has everything that is buffered after it. */
static enum match judge(const char *s, size_t n, bool eof, struct tail *tail)
{
  size_t at = 0;
  enum match m = literal(s, n, &at, "event: e");
  if (m != TAIL)
    return m;
  tail->kind = LBOX_EXEC_EXIT;
  m = literal(s, n, &at, "xit\n");
  if (m == NO) {
    tail->kind = LBOX_EXEC_ERROR;
    m = literal(s, n, &at, "rror\n");
  }
  if (m == TAIL)
    m = literal(s, n, &at, "data:");
  if (m != TAIL)
    return m;
  size_t left = n - at;
  size_t line = left > LBOX_EXEC_MAX_DATA ? LBOX_EXEC_MAX_DATA + 1 : left;
  const char *newline = memchr(s + at, '\n', line);
  if (!newline && line > LBOX_EXEC_MAX_DATA)
    return NO;
  size_t end = newline ? (size_t)(newline - s) : n;
  while (at < end && s[at] == ' ')
    at++;
  tail->json = at;
  tail->json_len = end - at;
  if (!newline)
    return eof && end > at ? TAIL : MAYBE;
  if (end == at || n - end > MAX_LINE_ENDS)
    return NO;
  for (size_t i = end; i < n; i++) {
    if (s[i] != '\n' && s[i] != '\r')
      return NO;
  }
  return TAIL;
}

/* The first offset from `from` on where a tail could begin, n when there is none. */
static size_t candidate(const char *s, size_t n, size_t from)
{
  static const char start[] = "event: e";
  enum { START = sizeof start - 1 };
  if (n - from >= START) {
    const char *found = memmem(s + from, n - from, start, START);
    if (found)
      return (size_t)(found - s);
    from = n - (START - 1);
  }
  for (; from < n; from++) {
    if (s[from] == 'e' && memcmp(s + from, start, n - from) == 0)
      return from;
  }
  return n;
}

enum lbox_exec_kind lbox_exec_next(struct lbox_buf *b, bool eof, const char **bytes, size_t *len)
{
  size_t n = lbox_buf_len(b);
  if (n == 0)
    return LBOX_EXEC_NONE;
  const char *s = lbox_buf_data(b);
  struct tail tail = {LBOX_EXEC_NONE, 0, 0};
  enum match m = NO;
  size_t at = candidate(s, n, 0);
  while (at < n) {
    m = judge(s + at, n - at, eof, &tail);
    if (m == TAIL || (m == MAYBE && !eof))
      break;
    at = candidate(s, n, at + 1);
  }
  if (at > 0) {
    *bytes = s;
    *len = at;
    lbox_buf_consume(b, at);
    return LBOX_EXEC_OUTPUT;
  }
  if (m != TAIL || !eof)
    return LBOX_EXEC_NONE;
  *bytes = s + tail.json;
  *len = tail.json_len;
  lbox_buf_consume(b, n);
  return tail.kind;
}
