/*
** A growable byte buffer with a mandatory maximum. Bytes are appended at the end and consumed from
** the front; what is unread always lies in one piece, so a parser may point into it.
*/
#ifndef LBOX_BUF_H
#define LBOX_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct lbox_buf {
  char *base;   /* owned */
  size_t start; /* first unread byte */
  size_t end;   /* one past the last */
  size_t cap;
  size_t max; /* most unread bytes it ever holds */
};

void lbox_buf_init(struct lbox_buf *b, size_t max);
void lbox_buf_free(struct lbox_buf *b);

/* Unread bytes; valid until the next append. NULL while nothing was ever appended. */
static inline char *lbox_buf_data(struct lbox_buf *b)
{
  return b->base ? b->base + b->start : NULL;
}

static inline size_t lbox_buf_len(const struct lbox_buf *b)
{
  return b->end - b->start;
}

/* Appends n bytes, or none and false when that would exceed the maximum or memory is out. */
bool lbox_buf_append(struct lbox_buf *b, const void *bytes, size_t n);

/* Drops n bytes from the front. The bytes stay where they are until the next append. */
void lbox_buf_consume(struct lbox_buf *b, size_t n);

#endif
