/*
** Streams of a command's output. A body is made of the input, rich in pieces of markers, and cut
** anywhere. The parser must give what a plain search over the whole body gives: every byte before
*the
** tail, and the tail; before the end never a byte of what could be one, and never an exit.
*/
#include "core/exec_stream.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void require(bool ok)
{
  if (!ok)
    abort();
}

static const char *const pieces[] = {"event: exit\ndata: {\"exit_code\":0}\n\n",
                                     "event: error\ndata: {\"error\":\"no\"}\n\n",
                                     "event: exit\n",
                                     "event: e",
                                     "data:",
                                     "data: {}\n",
                                     "\n",
                                     "\r\n",
                                     "xit\n",
                                     "rror\n",
                                     "e",
                                     " "};

/* Each byte below the number of pieces stands for that piece, all others for themselves. */
static void make_body(struct lbox_buf *body, const uint8_t *bytes, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    bool piece = bytes[i] < sizeof pieces / sizeof *pieces;
    const void *part = piece ? (const void *)pieces[bytes[i]] : &bytes[i];
    require(lbox_buf_append(body, part, piece ? strlen(pieces[bytes[i]]) : 1));
  }
}

static bool skip(const char *s, size_t n, size_t *at, const char *text)
{
  size_t len = strlen(text);
  if (n - *at < len || memcmp(s + *at, text, len) != 0)
    return false;
  *at += len;
  return true;
}

/* Whether s as a whole is a tail: the rule, read aloud. */
static enum lbox_exec_kind whole_tail(const char *s, size_t n, size_t *json, size_t *json_len)
{
  enum lbox_exec_kind kind = LBOX_EXEC_EXIT;
  size_t at = 0;
  if (!skip(s, n, &at, "event: exit\ndata:")) {
    kind = LBOX_EXEC_ERROR;
    if (!skip(s, n, &at, "event: error\ndata:"))
      return LBOX_EXEC_NONE;
  }
  size_t end = at;
  while (end < n && s[end] != '\n')
    end++;
  if (end - at > LBOX_EXEC_MAX_DATA || n - end > 4)
    return LBOX_EXEC_NONE;
  while (at < end && s[at] == ' ')
    at++;
  if (at == end)
    return LBOX_EXEC_NONE;
  *json = at;
  *json_len = end - at;
  for (; end < n; end++) {
    if (s[end] != '\n' && s[end] != '\r')
      return LBOX_EXEC_NONE;
  }
  return kind;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
  if (n < 2 || n > 4096)
    return 0;
  struct lbox_buf body, b;
  lbox_buf_init(&body, 1 << 20);
  lbox_buf_init(&b, 1 << 20);
  make_body(&body, bytes + 2, n - 2);
  const char *all = lbox_buf_data(&body);
  size_t len = lbox_buf_len(&body), tail = 0, json = 0, json_len = 0;
  enum lbox_exec_kind wanted = LBOX_EXEC_NONE;
  for (; tail < len; tail++) {
    wanted = whole_tail(all + tail, len - tail, &json, &json_len);
    if (wanted != LBOX_EXEC_NONE)
      break;
  }

  size_t fed = 0, seen = 0, step = 1 + bytes[0] % 64;
  enum lbox_exec_kind got = LBOX_EXEC_NONE;
  bool cut = bytes[1] % 4 == 0; /* the connection broke: the parser never hears of an end */
  while (fed <= len) {
    bool eof = fed == len && !cut;
    const char *out;
    size_t out_len;
    enum lbox_exec_kind kind;
    while ((kind = lbox_exec_next(&b, eof, &out, &out_len)) != LBOX_EXEC_NONE) {
      require(got == LBOX_EXEC_NONE);
      if (kind == LBOX_EXEC_OUTPUT) {
        require(out_len > 0 && seen + out_len <= tail && memcmp(out, all + seen, out_len) == 0);
        seen += out_len;
      } else {
        require(eof && kind == wanted && seen == tail);
        require(out_len == json_len && memcmp(out, all + tail + json, json_len) == 0);
        got = kind;
      }
    }
    if (fed == len)
      break;
    size_t piece = step < len - fed ? step : len - fed;
    require(lbox_buf_append(&b, all + fed, piece));
    fed += piece;
    step = step * 7 % 61 + 1;
  }
  require(cut || (got == wanted && seen == tail && lbox_buf_len(&b) == 0));
  lbox_buf_free(&body);
  lbox_buf_free(&b);
  return 0;
}
