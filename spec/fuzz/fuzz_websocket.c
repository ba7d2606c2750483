/*
** The framing of WebSocket, two ways. The input is what a peer sends, cut anywhere: it must end in
** messages within their maximum, a close or an end, whatever it is. Then it is a recipe of
*messages,
** which two ends exchange in pieces: each must come out as it was.
*/
#include "core/websocket.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGE = 4096, MAX_OUTPUT = 64 * 1024 };

static void require(bool ok)
{
  if (!ok)
    abort();
}

static void listen_to(const uint8_t *data, size_t n, bool server)
{
  struct lbox_ws *ws = lbox_ws_new(server, MAX_MESSAGE, MAX_OUTPUT);
  struct lbox_buf in;
  require(ws != NULL);
  lbox_buf_init(&in, n + 1);
  size_t step = n > 0 ? data[0] % 37 + 1u : 1;
  bool over = false;
  for (size_t at = 0; at < n; at += step) {
    const char *bytes = NULL;
    size_t len = 0;
    require(lbox_buf_append(&in, data + at, step < n - at ? step : n - at));
    for (enum lbox_ws_event event; (event = lbox_ws_next(ws, &in, &bytes, &len)) != LBOX_WS_NONE;) {
      require(!over);
      over = event != LBOX_WS_MESSAGE;
      require(over || len <= MAX_MESSAGE);
    }
    lbox_buf_consume(lbox_ws_output(ws), lbox_buf_len(lbox_ws_output(ws)));
  }
  lbox_buf_free(&in);
  lbox_ws_free(ws);
}

static void talk(const uint8_t *data, size_t n)
{
  struct lbox_ws *client = lbox_ws_new(false, MAX_MESSAGE, MAX_OUTPUT);
  struct lbox_ws *server = lbox_ws_new(true, MAX_MESSAGE, MAX_OUTPUT);
  struct lbox_buf in;
  require(client && server);
  lbox_buf_init(&in, MAX_OUTPUT);
  while (n > 2) {
    size_t len = data[0], step = data[1] % 64 + 1u, got = 0;
    static char text[256];
    memset(text, 'a' + data[2] % 26, sizeof text);
    data += 3;
    n -= 3;
    require(lbox_ws_send(client, text, len));
    const char *bytes = NULL;
    struct lbox_buf *out = lbox_ws_output(client);
    enum lbox_ws_event event;
    while ((event = lbox_ws_next(server, &in, &bytes, &got)) == LBOX_WS_NONE) {
      size_t some = step < lbox_buf_len(out) ? step : lbox_buf_len(out);
      require(some > 0 && lbox_buf_append(&in, lbox_buf_data(out), some));
      lbox_buf_consume(out, some);
    }
    require(event == LBOX_WS_MESSAGE && got == len && memcmp(bytes, text, len) == 0);
  }
  lbox_buf_free(&in);
  lbox_ws_free(client);
  lbox_ws_free(server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  listen_to(data, n, false);
  listen_to(data, n, true);
  talk(data, n);
  return 0;
}
