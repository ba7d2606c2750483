/* The framing of WebSocket: both ends talk to each other, cut anywhere; and what breaks the rules.
 */
#include "core/websocket.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MAX_MESSAGE = 100000, MAX_OUTPUT = 300000 };

struct side {
  struct lbox_ws *ws;
  struct lbox_buf in;
};

static struct side begin(bool server)
{
  struct side s = {.ws = lbox_ws_new(server, MAX_MESSAGE, MAX_OUTPUT)};
  CHECK(s.ws != NULL);
  lbox_buf_init(&s.in, 1 << 20);
  return s;
}

static void end(struct side *s)
{
  lbox_ws_free(s->ws);
  lbox_buf_free(&s->in);
}

/* Carries what one side wrote to the other, at most n bytes. */
static size_t carry(struct side *from, struct side *to, size_t n)
{
  struct lbox_buf *out = lbox_ws_output(from->ws);
  n = n < lbox_buf_len(out) ? n : lbox_buf_len(out);
  if (n > 0)
    CHECK(lbox_buf_append(&to->in, lbox_buf_data(out), n));
  lbox_buf_consume(out, n);
  return n;
}

static enum lbox_ws_event next(struct side *s, const char **bytes, size_t *len)
{
  *bytes = "";
  *len = 0;
  return lbox_ws_next(s->ws, &s->in, bytes, len);
}

static void test_the_handshake_is_that_of_the_standard(void)
{
  char accept[LBOX_WS_ACCEPT_SIZE], key[LBOX_WS_KEY_SIZE], other[LBOX_WS_KEY_SIZE];
  lbox_ws_accept(accept, "dGhlIHNhbXBsZSBub25jZQ==");
  CHECK(strcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == 0);
  CHECK(lbox_ws_key(key) && lbox_ws_key(other));
  CHECK_INT(strlen(key), 24);
  CHECK(strcmp(key, other) != 0);
}

static void test_messages_come_over_however_they_are_cut(void)
{
  static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, MAX_MESSAGE};
  char *text = malloc(MAX_MESSAGE);
  for (size_t i = 0; i < MAX_MESSAGE; i++)
    text[i] = (char)('a' + i % 26);
  for (size_t step = 1; step <= 70000; step = step * 7 + 1) {
    for (int server = 0; server < 2; server++) {
      struct side a = begin(server == 1), b = begin(server == 0);
      for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *bytes;
        size_t len;
        enum lbox_ws_event event;
        CHECK(lbox_ws_send(a.ws, text, sizes[i]));
        while ((event = next(&b, &bytes, &len)) == LBOX_WS_NONE && carry(&a, &b, step) > 0)
          ;
        CHECK(event == LBOX_WS_MESSAGE && len == sizes[i] && memcmp(bytes, text, len) == 0);
        CHECK(next(&b, &bytes, &len) == LBOX_WS_NONE);
      }
      end(&a);
      end(&b);
    }
  }
  free(text);
}

static void test_a_close_is_answered_and_ends_it(void)
{
  struct side a = begin(false), b = begin(true);
  const char *bytes;
  size_t len;
  CHECK(lbox_ws_send(b.ws, "last", 4));
  lbox_ws_close(b.ws);
  CHECK(!lbox_ws_send(b.ws, "more", 4));
  carry(&b, &a, SIZE_MAX);
  CHECK(next(&a, &bytes, &len) == LBOX_WS_MESSAGE && len == 4);
  CHECK(next(&a, &bytes, &len) == LBOX_WS_CLOSED);
  CHECK(next(&a, &bytes, &len) == LBOX_WS_NONE);
  CHECK(!lbox_ws_send(a.ws, "x", 1));
  carry(&a, &b, SIZE_MAX);
  CHECK(next(&b, &bytes, &len) == LBOX_WS_CLOSED);
  end(&a);
  end(&b);
}

static void feed(struct side *s, const char *bytes, size_t n)
{
  CHECK(lbox_buf_append(&s->in, bytes, n));
}

#define FEED(side, text) feed(side, text, sizeof(text) - 1)

static void test_fragments_and_pings(void)
{
  struct side client = begin(false);
  const char *bytes;
  size_t len;
  FEED(&client, "\x01\x03one\x89\x02hi\x00\x03two\x80\x00\x8a\x00");
  CHECK(next(&client, &bytes, &len) == LBOX_WS_MESSAGE && len == 6 &&
        memcmp(bytes, "onetwo", 6) == 0);
  CHECK_INT(lbox_buf_len(lbox_ws_output(client.ws)), 8); /* the pong: two bytes, a mask, "hi" */
  end(&client);

  struct side a = begin(false), b = begin(true);
  lbox_ws_ping(b.ws);
  CHECK_INT(lbox_buf_len(lbox_ws_output(b.ws)), 2);
  carry(&b, &a, SIZE_MAX);
  CHECK(next(&a, &bytes, &len) == LBOX_WS_NONE);
  CHECK_INT(lbox_buf_len(lbox_ws_output(a.ws)), 6); /* the pong */
  lbox_ws_close(b.ws);
  lbox_buf_consume(lbox_ws_output(b.ws), lbox_buf_len(lbox_ws_output(b.ws)));
  lbox_ws_ping(b.ws);
  CHECK_INT(lbox_buf_len(lbox_ws_output(b.ws)), 0);
  end(&a);
  end(&b);
}

static void test_what_breaks_the_rules_ends_it_after_what_came_before(void)
{
  static const struct {
    const char *what, *bytes;
    size_t len;
  } bad[] = {
      {"a reserved bit", "\xc1\x01x", 3},
      {"a reserved opcode", "\x83\x01x", 3},
      {"a masked frame of a server", "\x81\x81xxxxx", 7},
      {"text that is none", "\x81\x01\xff", 3},
      {"a fragmented ping", "\x09\x01x", 3},
      {"a continuation of nothing", "\x80\x01x", 3},
      {"a ping that is too long", "\x89\x7e\x00\x7e", 4},
      {"a message that is too long", "\x81\x7f\x00\x00\x00\x00\x00\x02\x00\x00x", 11},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct side client = begin(false);
    const char *bytes;
    size_t len;
    FEED(&client, "\x81\x02ok");
    feed(&client, bad[i].bytes, bad[i].len);
    enum lbox_ws_event first = next(&client, &bytes, &len), second = next(&client, &bytes, &len);
    if (first != LBOX_WS_MESSAGE || second != LBOX_WS_BROKEN)
      fprintf(stderr, "%s: %d, then %d\n", bad[i].what, first, second);
    CHECK(first == LBOX_WS_MESSAGE && second == LBOX_WS_BROKEN);
    CHECK(next(&client, &bytes, &len) == LBOX_WS_NONE);
    CHECK(!lbox_ws_send(client.ws, "x", 1));
    end(&client);
  }
}

static void test_what_does_not_fit_is_not_sent(void)
{
  struct side a = begin(false);
  char *text = calloc(1, MAX_MESSAGE);
  int sent = 0;
  while (lbox_ws_send(a.ws, text, MAX_MESSAGE))
    sent++;
  CHECK_INT(sent, 2);
  lbox_buf_consume(lbox_ws_output(a.ws), lbox_buf_len(lbox_ws_output(a.ws)));
  CHECK(lbox_ws_send(a.ws, text, MAX_MESSAGE));
  free(text);
  end(&a);
}

int main(void)
{
  test_the_handshake_is_that_of_the_standard();
  test_messages_come_over_however_they_are_cut();
  test_a_close_is_answered_and_ends_it();
  test_fragments_and_pings();
  test_what_breaks_the_rules_ends_it_after_what_came_before();
  test_what_does_not_fit_is_not_sent();
  return check_summary();
}
