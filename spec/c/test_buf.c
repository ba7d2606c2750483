#include "core/buf.h"

#include <stdint.h>
#include <stdlib.h>

#include "check.h"

static void test_appends_and_consumes(void)
{
  struct lbox_buf b;
  lbox_buf_init(&b, 100);
  CHECK_INT(lbox_buf_len(&b), 0);
  CHECK(lbox_buf_data(&b) == NULL);
  CHECK(lbox_buf_append(&b, "", 0));
  CHECK(lbox_buf_append(&b, "hello ", 6));
  CHECK(lbox_buf_append(&b, "world", 5));
  CHECK_INT(lbox_buf_len(&b), 11);
  CHECK(memcmp(lbox_buf_data(&b), "hello world", 11) == 0);
  lbox_buf_consume(&b, 6);
  CHECK_INT(lbox_buf_len(&b), 5);
  CHECK(memcmp(lbox_buf_data(&b), "world", 5) == 0);
  lbox_buf_consume(&b, 5);
  CHECK_INT(lbox_buf_len(&b), 0);
  lbox_buf_free(&b);
  CHECK(lbox_buf_append(&b, "again", 5)); /* usable after free, with the same maximum */
  CHECK_INT(b.max, 100);
  lbox_buf_free(&b);
}

static void test_never_holds_more_than_its_maximum(void)
{
  struct lbox_buf b;
  lbox_buf_init(&b, 10);
  CHECK(lbox_buf_append(&b, "0123456789", 10));
  CHECK(!lbox_buf_append(&b, "x", 1));
  CHECK_INT(lbox_buf_len(&b), 10);
  lbox_buf_consume(&b, 4);
  CHECK(lbox_buf_append(&b, "abcd", 4));
  CHECK(!lbox_buf_append(&b, "x", 1));
  CHECK(!lbox_buf_append(&b, "x", SIZE_MAX));
  CHECK(memcmp(lbox_buf_data(&b), "456789abcd", 10) == 0);
  lbox_buf_free(&b);

  lbox_buf_init(&b, 0);
  CHECK(!lbox_buf_append(&b, "x", 1));
  lbox_buf_free(&b);
}

static void test_consumed_bytes_stay_until_the_next_append(void)
{
  struct lbox_buf b;
  lbox_buf_init(&b, 100);
  lbox_buf_append(&b, "abc", 3);
  const char *p = lbox_buf_data(&b);
  lbox_buf_consume(&b, 3);
  CHECK(memcmp(p, "abc", 3) == 0);
  lbox_buf_free(&b);
}

/* A queue of numbered bytes, appended and consumed in odd sizes, must come out in order; and a slow
   reader must not make it grow without need. */
static void test_keeps_order_and_stays_small(void)
{
  struct lbox_buf b;
  unsigned char chunk[977];
  size_t in = 0, out = 0, wrong = 0;
  unsigned seed = 12345;
  lbox_buf_init(&b, 64 * 1024);
  for (int round = 0; round < 20000; round++) {
    seed = seed * 1103515245u + 12345u;
    size_t n = (seed >> 8) % sizeof chunk;
    for (size_t i = 0; i < n; i++)
      chunk[i] = (unsigned char)((in + i) % 251);
    if (lbox_buf_append(&b, chunk, n))
      in += n;
    size_t take = (seed >> 16) % 1000;
    if (take > lbox_buf_len(&b))
      take = lbox_buf_len(&b);
    const unsigned char *p = (const unsigned char *)lbox_buf_data(&b);
    for (size_t i = 0; i < take; i++)
      wrong += p[i] != (out + i) % 251;
    lbox_buf_consume(&b, take);
    out += take;
  }
  CHECK_INT(wrong, 0);
  CHECK_INT(in - out, lbox_buf_len(&b));
  CHECK(b.cap <= 4 * b.max);
  lbox_buf_free(&b);
}

int main(void)
{
  test_appends_and_consumes();
  test_never_holds_more_than_its_maximum();
  test_consumed_bytes_stay_until_the_next_append();
  test_keeps_order_and_stays_small();
  return check_summary();
}
