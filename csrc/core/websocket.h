/*
** The framing of WebSocket (RFC 6455), by wslay: messages out of bytes, and bytes out of messages.
** It does not know where the bytes come from or go, and either side of a connection can be it.
** Pings are answered, fragments put together; what breaks the rules ends it.
*/
#ifndef LBOX_WEBSOCKET_H
#define LBOX_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"

enum {
  LBOX_WS_KEY_SIZE = 25,   /* of a handshake's key as text, with its NUL */
  LBOX_WS_ACCEPT_SIZE = 29 /* of the answer to it */
};

struct lbox_ws;

enum lbox_ws_event {
  LBOX_WS_NONE,    /* more bytes are needed */
  LBOX_WS_MESSAGE, /* text or binary */
  LBOX_WS_CLOSED,  /* the peer closed; nothing more will come */
  LBOX_WS_BROKEN   /* the peer broke the rules, or memory is out: nothing more will come */
};

/* A message of the peer may have at most `max_message` bytes; what is to be written holds at most
   `max_output`. NULL when memory is out. */
struct lbox_ws *lbox_ws_new(bool server, size_t max_message, size_t max_output);
void lbox_ws_free(struct lbox_ws *ws);

/* Takes bytes off `in` until there is a message. It is borrowed and valid until the next call. */
enum lbox_ws_event lbox_ws_next(struct lbox_ws *ws, struct lbox_buf *in, const char **bytes,
                                size_t *len);

/* Frames a text message. False, and nothing, after a close or when there is no room for it. */
bool lbox_ws_send(struct lbox_ws *ws, const char *bytes, size_t len);

/* Asks the peer to answer, which it does only if it is there. */
void lbox_ws_ping(struct lbox_ws *ws);

/* Says that nothing more is sent. */
void lbox_ws_close(struct lbox_ws *ws);

/* What is to be written to the peer, which the caller consumes: also after lbox_ws_next. */
struct lbox_buf *lbox_ws_output(struct lbox_ws *ws);

/* A fresh key for a handshake; false when the kernel gave no random bytes. */
bool lbox_ws_key(char out[LBOX_WS_KEY_SIZE]);
/* What Sec-WebSocket-Accept has to be for a key. */
void lbox_ws_accept(char out[LBOX_WS_ACCEPT_SIZE], const char *key);

#endif
