/*
** For the parsers' tests: a buffer whose last byte lies right before a page that cannot be touched,
** so that reading one byte too far crashes, and a log of what a parser said.
*/
#ifndef LBOX_SPEC_PARSER_SUPPORT_H
#define LBOX_SPEC_PARSER_SUPPORT_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "core/buf.h"

/* Two areas used in turn: what a parser kept a pointer to is gone after the next feed. */
struct guarded {
  struct lbox_buf buf;
  char *limit[2]; /* the pages from here on are not accessible */
  size_t size;
  int turn;
};

static inline void guarded_open(struct guarded *g, size_t size)
{
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  *g = (struct guarded){.size = (size + page - 1) / page * page};
  for (int i = 0; i < 2; i++) {
    char *area =
        mmap(NULL, g->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || mprotect(area + g->size, page, PROT_NONE) != 0) {
      perror("mmap");
      exit(1);
    }
    g->limit[i] = area + g->size;
  }
  g->buf.base = g->limit[0];
}

static inline void guarded_reset(struct guarded *g)
{
  g->buf = (struct lbox_buf){.base = g->limit[0]};
}

/* Appends n bytes: everything unread moves to the other area, the old place is overwritten. */
static inline void guarded_feed(struct guarded *g, const char *bytes, size_t n)
{
  size_t len = lbox_buf_len(&g->buf);
  if (len + n > g->size) {
    fprintf(stderr, "guarded_feed: %zu bytes are too many\n", len + n);
    exit(1);
  }
  g->turn = !g->turn;
  char *base = g->limit[g->turn] - len - n;
  memcpy(base, lbox_buf_data(&g->buf), len);
  memset(lbox_buf_data(&g->buf), '#', len);
  memcpy(base + len, bytes, n);
  g->buf = (struct lbox_buf){.base = base, .end = len + n, .cap = len + n, .max = g->size};
}

struct log {
  char *text;
  size_t len;
  FILE *file;
};

static inline void log_begin(struct log *log)
{
  *log = (struct log){0};
  log->file = open_memstream(&log->text, &log->len);
  if (!log->file)
    exit(1);
}

/* Compares with what was expected, and forgets the log. */
static inline void log_end(struct log *log, const char *what, const char *how, const char *expected,
                           size_t expected_len)
{
  fclose(log->file);
  bool same = log->len == expected_len && memcmp(log->text, expected, expected_len) == 0;
  if (!same)
    fprintf(stderr, "%s, %s:\n--- expected\n%.*s\n--- got\n%s\n", what, how, (int)expected_len,
            expected, log->text);
  CHECK(same);
  free(log->text);
}

#endif
