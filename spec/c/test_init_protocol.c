/* What lbox-init reads from its socket: whole messages, cut ones and any others. */
#include "check.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/init/message.c"
#include "server/init/protocol.h"
#include "server/init/request.c"

/* A message in memory that ends where it ends, so that a sanitizer sees one byte too much read. */
struct built {
  char bytes[512];
  size_t n;
};

static void put_u32(struct built *b, uint32_t value)
{
  memcpy(b->bytes + b->n, &value, sizeof value);
  b->n += sizeof value;
}

static void put_text(struct built *b, const char *text, size_t n)
{
  put_u32(b, (uint32_t)n);
  memcpy(b->bytes + b->n, text, n);
  b->n += n;
}

static struct built start(uint32_t op, uint32_t id)
{
  struct built b = {.n = 0};
  put_u32(&b, op);
  put_u32(&b, id);
  return b;
}

/* Parses the first `n` bytes from a block of exactly that size, which the caller frees. */
static char *parse(const struct built *b, size_t n, struct lbox_request *r, int *code)
{
  char *bytes = malloc(n ? n : 1);
  memcpy(bytes, b->bytes, n);
  *code = lbox_request_parse(bytes, n, r);
  return bytes;
}

static void whole_requests(void)
{
  struct lbox_request r;
  int code;
  struct built b = start(LBOX_INIT_RENAME, 7);
  put_text(&b, "/a", 2);
  put_text(&b, "/b/c", 4);
  char *bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.op, LBOX_INIT_RENAME);
  CHECK_INT(r.id, 7);
  CHECK_TEXT(r.path, "/a");
  CHECK_TEXT(r.to, "/b/c");
  free(bytes);

  b = start(LBOX_INIT_KILL, 8);
  put_u32(&b, 12);
  put_u32(&b, 9);
  put_u32(&b, 1);
  bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.number, 12);
  CHECK_INT(r.signal, 9);
  CHECK_INT(r.force, 1);
  free(bytes);

  b = start(LBOX_INIT_STAT, 9);
  put_u32(&b, 1);
  put_text(&b, "/x", 2);
  bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.number, 1);
  CHECK_TEXT(r.path, "/x");
  free(bytes);

  b = start(LBOX_INIT_CONNECT, 10);
  put_u32(&b, 8080);
  put_u32(&b, 1);
  bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.number, 8080);
  CHECK_INT(r.six, 1);
  free(bytes);

  b = start(LBOX_INIT_FREEZE, 11);
  bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.op, LBOX_INIT_FREEZE);
  free(bytes);

  b = start(LBOX_INIT_TERMINAL, 11);
  put_u32(&b, 24);
  put_u32(&b, 80);
  bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.number, 24);
  CHECK_INT(r.columns, 80);
  free(bytes);

  b = start(LBOX_INIT_LISTEN, 11);
  put_u32(&b, 3128);
  bytes = parse(&b, b.n, &r, &code);
  CHECK_INT(code, 0);
  CHECK_INT(r.number, 3128);
  free(bytes);
}

static int code_of(const struct built *b)
{
  struct lbox_request r;
  int code;
  free(parse(b, b->n, &r, &code));
  return code;
}

static void wrong_requests(void)
{
  struct built b = start(4711, 1);
  CHECK_INT(code_of(&b), ENOSYS);

  b = start(LBOX_INIT_OPEN, 1); /* not absolute */
  put_text(&b, "etc", 3);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_OPEN, 1); /* empty */
  put_text(&b, "", 0);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_OPEN, 1); /* NUL inside */
  put_text(&b, "/a\0b", 4);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_OPEN, 1); /* something after the last field */
  put_text(&b, "/a", 2);
  put_u32(&b, 0);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_OPEN, 1); /* a length that goes round */
  put_u32(&b, 0xffffffff);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_CONNECT, 1); /* no such port */
  put_u32(&b, 65536);
  put_u32(&b, 0);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_THAW, 1); /* a field where there is none */
  put_u32(&b, 0);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_TERMINAL, 1); /* wider than any */
  put_u32(&b, 24);
  put_u32(&b, 65536);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_LISTEN, 1); /* no port */
  put_u32(&b, 0);
  CHECK_INT(code_of(&b), EINVAL);

  b = start(LBOX_INIT_KILL, 1); /* no such signal */
  put_u32(&b, 3);
  put_u32(&b, 65);
  put_u32(&b, 0);
  CHECK_INT(code_of(&b), EINVAL);
}

static void cut_requests(void)
{
  struct built b = start(LBOX_INIT_RENAME, 7);
  put_text(&b, "/from", 5);
  put_text(&b, "/to", 3);
  for (size_t n = 0; n < b.n; n++) {
    struct lbox_request r;
    int code;
    char *bytes = parse(&b, n, &r, &code);
    CHECK_INT(code, EINVAL);
    CHECK_INT(r.id, n >= 8 ? 7 : 0);
    free(bytes);
  }
}

static struct built command(void)
{
  struct built b = {.n = 0};
  put_text(&b, "/workspace", 10);
  put_u32(&b, 2);
  put_text(&b, "echo", 4);
  put_text(&b, "", 0);
  put_u32(&b, 1);
  put_text(&b, "A=b", 3);
  return b;
}

static void commands(void)
{
  struct built b = command();
  struct lbox_command c;
  char *bytes = malloc(b.n);
  memcpy(bytes, b.bytes, b.n);
  CHECK_INT(lbox_command_parse(bytes, b.n, &c), 0);
  CHECK_TEXT(c.cwd, "/workspace");
  CHECK_TEXT(c.argv[0], "echo");
  CHECK_TEXT(c.argv[1], "");
  CHECK(c.argv[2] == NULL);
  CHECK_TEXT(c.env[0], "A=b");
  CHECK(c.env[1] == NULL);
  lbox_command_free(&c);
  free(bytes);

  for (size_t n = 0; n < b.n; n++) {
    bytes = malloc(n ? n : 1);
    memcpy(bytes, b.bytes, n);
    CHECK_INT(lbox_command_parse(bytes, n, &c), EINVAL);
    CHECK(c.argv == NULL && c.env == NULL);
    free(bytes);
  }

  struct built many = {.n = 0}; /* more words than there are bytes: no memory is asked for them */
  put_text(&many, "/", 1);
  put_u32(&many, 0x7fffffff);
  put_u32(&many, 0);
  CHECK_INT(lbox_command_parse(many.bytes, many.n, &c), EINVAL);

  struct built none = {.n = 0};
  put_text(&none, "/", 1);
  put_u32(&none, 0);
  put_u32(&none, 0);
  CHECK_INT(lbox_command_parse(none.bytes, none.n, &c), EINVAL);
}

/* Any bytes: what comes out lies in the message and ends in it. */
static void any_bytes(void)
{
  uint32_t state = 12345;
  for (int round = 0; round < 200000; round++) {
    char bytes[64];
    size_t n = 0;
    struct lbox_request r;
    struct lbox_command c;
    for (size_t i = 0; i < sizeof bytes; i++) {
      state = state * 1664525 + 1013904223;
      /* Small numbers often, so that lengths are plausible. */
      bytes[i] = (char)(state >> 28 ? state >> 24 & (i % 4 ? 0 : 15) : state >> 16);
      n = state >> 8 & 63;
    }
    char *block = malloc(n ? n : 1);
    memcpy(block, bytes, n);
    if (lbox_request_parse(block, n, &r) == 0) {
      CHECK(!*r.path || (r.path >= block && r.path + strlen(r.path) < block + n));
      CHECK(!*r.to || (r.to >= block && r.to + strlen(r.to) < block + n));
    }
    memcpy(block, bytes, n);
    if (lbox_command_parse(block, n, &c) == 0) {
      CHECK(c.cwd >= block && c.cwd + strlen(c.cwd) < block + n);
      for (char **word = c.argv; *word; word++)
        CHECK(!**word || (*word >= block && *word + strlen(*word) < block + n));
      lbox_command_free(&c);
    }
    free(block);
  }
}

int main(void)
{
  whole_requests();
  wrong_requests();
  cut_requests();
  commands();
  any_bytes();
  return check_summary();
}
