#include "core/websocket.h"
#include "core/util.h"

#include <nettle/sha1.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

enum {
  PIECE = 16 * 1024, /* taken off the input at a time, so that few messages wait in the queue */
  KEY_BYTES = 16
};

/* A message that waits to be taken. */
struct message {
  struct message *next;
  enum lbox_ws_event kind;
  size_t len;
  char bytes[];
};

struct lbox_ws {
  wslay_event_context_ptr context; /* owned */
  struct lbox_buf *in;             /* borrowed during lbox_ws_next */
  size_t may_take;                 /* of it */
  struct lbox_buf out;
  struct message *head, *tail, *taken; /* owned; `taken` is the one that was handed out last */
  bool no_memory, broken, ended;       /* broken: to be told after the messages before */
};

static ssize_t on_read(wslay_event_context_ptr context, uint8_t *out, size_t n, int flags, void *ud)
{
  struct lbox_ws *ws = ud;
  (void)flags;
  size_t len = n < ws->may_take ? n : ws->may_take;
  if (len == 0) {
    wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
    return -1;
  }
  memcpy(out, lbox_buf_data(ws->in), len);
  lbox_buf_consume(ws->in, len);
  ws->may_take -= len;
  return (ssize_t)len;
}

static ssize_t on_write(wslay_event_context_ptr context, const uint8_t *bytes, size_t n, int flags,
                        void *ud)
{
  struct lbox_ws *ws = ud;
  (void)flags;
  if (lbox_buf_append(&ws->out, bytes, n))
    return (ssize_t)n;
  ws->no_memory = true;
  wslay_event_set_error(context, WSLAY_ERR_CALLBACK_FAILURE);
  return -1;
}

static int on_mask(wslay_event_context_ptr context, uint8_t *out, size_t n, void *ud)
{
  (void)ud;
  if (lbox_random(out, n))
    return 0;
  wslay_event_set_error(context, WSLAY_ERR_CALLBACK_FAILURE);
  return -1;
}

static void on_message(wslay_event_context_ptr context,
                       const struct wslay_event_on_msg_recv_arg *arg, void *ud)
{
  struct lbox_ws *ws = ud;
  (void)context;
  bool close = arg->opcode == WSLAY_CONNECTION_CLOSE;
  if (wslay_is_ctrl_frame(arg->opcode) && !close)
    return;
  struct message *m = malloc(sizeof *m + arg->msg_length);
  if (!m) {
    ws->no_memory = true;
    return;
  }
  m->next = NULL;
  m->kind = close ? LBOX_WS_CLOSED : LBOX_WS_MESSAGE;
  m->len = arg->msg_length;
  if (m->len > 0)
    memcpy(m->bytes, arg->msg, m->len);
  *(ws->head ? &ws->tail->next : &ws->head) = m;
  ws->tail = m;
}

struct lbox_ws *lbox_ws_new(bool server, size_t max_message, size_t max_output)
{
  static const struct wslay_event_callbacks callbacks = {.recv_callback = on_read,
                                                         .send_callback = on_write,
                                                         .genmask_callback = on_mask,
                                                         .on_msg_recv_callback = on_message};
  struct lbox_ws *ws = calloc(1, sizeof *ws);
  if (!ws)
    return NULL;
  lbox_buf_init(&ws->out, max_output);
  if ((server ? wslay_event_context_server_init
              : wslay_event_context_client_init)(&ws->context, &callbacks, ws) != 0) {
    free(ws);
    return NULL;
  }
  wslay_event_config_set_max_recv_msg_length(ws->context, max_message);
  return ws;
}

void lbox_ws_free(struct lbox_ws *ws)
{
  if (!ws)
    return;
  wslay_event_context_free(ws->context);
  lbox_buf_free(&ws->out);
  free(ws->taken);
  for (struct message *m = ws->head, *next; m; m = next) {
    next = m->next;
    free(m);
  }
  free(ws);
}

/* Writes the frames that wait. False when that failed. */
static bool flush(struct lbox_ws *ws)
{
  return wslay_event_send(ws->context) == 0 && !ws->no_memory;
}

enum lbox_ws_event lbox_ws_next(struct lbox_ws *ws, struct lbox_buf *in, const char **bytes,
                                size_t *len)
{
  free(ws->taken);
  ws->taken = NULL;
  ws->in = in;
  while (!ws->head && !ws->broken && !ws->ended && lbox_buf_len(in) > 0) {
    ws->may_take = lbox_buf_len(in) < PIECE ? lbox_buf_len(in) : PIECE;
    bool ok = wslay_event_recv(ws->context) == 0 && (wslay_event_get_read_enabled(ws->context) ||
                                                     wslay_event_get_close_received(ws->context));
    ws->broken = !flush(ws) || !ok;
  }
  ws->in = NULL;
  struct message *m = ws->head;
  if (!m) {
    bool first = ws->broken && !ws->ended;
    ws->ended = ws->ended || ws->broken;
    return first ? LBOX_WS_BROKEN : LBOX_WS_NONE;
  }
  ws->head = m->next;
  ws->taken = m;
  ws->ended = m->kind == LBOX_WS_CLOSED;
  *bytes = m->bytes;
  *len = m->len;
  return m->kind;
}

bool lbox_ws_send(struct lbox_ws *ws, const char *bytes, size_t len)
{
  enum { MOST_HEADER = 14 };
  struct wslay_event_msg message = {
      .opcode = WSLAY_TEXT_FRAME, .msg = (const uint8_t *)bytes, .msg_length = len};
  size_t room = ws->out.max - lbox_buf_len(&ws->out);
  return !ws->ended && len + MOST_HEADER <= room &&
         wslay_event_queue_msg(ws->context, &message) == 0 && flush(ws);
}

void lbox_ws_ping(struct lbox_ws *ws)
{
  const struct wslay_event_msg message = {.opcode = WSLAY_PING};
  if (!ws->ended && wslay_event_queue_msg(ws->context, &message) == 0)
    flush(ws);
}

void lbox_ws_close(struct lbox_ws *ws)
{
  if (!ws->ended && wslay_event_queue_close(ws->context, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0) == 0)
    flush(ws);
}

struct lbox_buf *lbox_ws_output(struct lbox_ws *ws)
{
  return &ws->out;
}

/* --- the handshake ---------------------------------------------------------------------------- */

bool lbox_ws_key(char out[LBOX_WS_KEY_SIZE])
{
  char bytes[KEY_BYTES];
  if (!lbox_random(bytes, sizeof bytes))
    return false;
  out[lbox_base64_encode(out, bytes, sizeof bytes)] = 0;
  return true;
}

void lbox_ws_accept(char out[LBOX_WS_ACCEPT_SIZE], const char *key)
{
  static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  struct sha1_ctx sha1;
  uint8_t digest[SHA1_DIGEST_SIZE];
  sha1_init(&sha1);
  sha1_update(&sha1, strlen(key), (const uint8_t *)key);
  sha1_update(&sha1, sizeof guid - 1, (const uint8_t *)guid);
  sha1_digest(&sha1, sizeof digest, digest);
  out[lbox_base64_encode(out, (const char *)digest, sizeof digest)] = 0;
}
