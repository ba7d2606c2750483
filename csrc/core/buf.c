#include "core/buf.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 1024 };

void lbox_buf_init(struct lbox_buf *b, size_t max)
{
  *b = (struct lbox_buf){.max = max};
}

void lbox_buf_free(struct lbox_buf *b)
{
  free(b->base);
  *b = (struct lbox_buf){.max = b->max};
}

/* A capacity of at least `need` that is at least twice the old one. */
static size_t grown(size_t cap, size_t need)
{
  size_t next = cap > SIZE_MAX / 2 ? SIZE_MAX : cap * 2;
  if (next < FIRST_CAPACITY)
    next = FIRST_CAPACITY;
  return next > need ? next : need;
}

static bool make_room(struct lbox_buf *b, size_t n)
{
  size_t len = lbox_buf_len(b);
  if (n > b->max || len > b->max - n)
    return false;
  if (b->cap - b->end >= n)
    return true;
  /* Moving must gain as much as it copies, else a slow reader would make it quadratic. */
  if (b->cap - len >= n && b->start >= len) {
    memmove(b->base, b->base + b->start, len);
  } else {
    size_t cap = grown(b->cap, len + n);
    char *base = b->start ? malloc(cap) : realloc(b->base, cap);
    if (!base)
      return false;
    if (b->start) {
      memcpy(base, b->base + b->start, len);
      free(b->base);
    }
    b->base = base;
    b->cap = cap;
  }
  b->start = 0;
  b->end = len;
  return true;
}

bool lbox_buf_append(struct lbox_buf *b, const void *bytes, size_t n)
{
  if (n == 0)
    return true;
  if (!make_room(b, n))
    return false;
  memcpy(b->base + b->end, bytes, n);
  b->end += n;
  return true;
}

void lbox_buf_consume(struct lbox_buf *b, size_t n)
{
  assert(n <= lbox_buf_len(b));
  b->start += n;
  if (b->start == b->end)
    b->start = b->end = 0;
}
