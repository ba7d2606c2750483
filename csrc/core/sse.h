/*
** Agent event streams (box-sse-v1): an `event:` line, a `data:` line, a blank line. The parser
** works in place on a buffer and is as forgiving as the official clients: terminal escapes and
** spinner residue before a line are dropped, a missing blank line is made up for when nothing else
** is there. Unlike theirs, it loses nothing when a chunk cuts an escape, or the end a data line.
*/
#ifndef LBOX_SSE_H
#define LBOX_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"

/* Part of the buffer, by its offset from the first unread byte. Empty is the same as not there. */
struct lbox_sse_slice {
  size_t at, len;
};

/* Zero it to begin. Between two calls the buffer may be appended to, and nothing else. */
struct lbox_sse {
  size_t line;     /* start of the line being looked for */
  size_t searched; /* up to here it has no newline */
  struct lbox_sse_slice event, data;
};

/* Borrowed from the buffer, valid until its next append; what is there may be written over. */
struct lbox_sse_event {
  const char *name;
  char *data;
  size_t name_len, data_len;
};

/* Takes the next event off the buffer. False: more bytes are needed. `eof`: none will come. */
bool lbox_sse_next(struct lbox_sse *p, struct lbox_buf *b, bool eof, struct lbox_sse_event *out);

/* The text of a text or thinking event whose data has the exact shape {"text":"..."}, with what is
   escaped in it written in place; NULL for any other, and for \uXXXX in it: those are for a JSON
   decoder. An agent's stream consists of little else. */
const char *lbox_sse_text(struct lbox_sse_event *event, size_t *len);

#endif
