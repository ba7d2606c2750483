/* Reading a message field by field, each within bounds. After the first field that is not there,
   every further one is empty and `bad` stays set. */
#ifndef LBOX_INIT_MESSAGE_H
#define LBOX_INIT_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lbox_message {
  char *at; /* borrowed; changed by lbox_message_string */
  size_t left;
  bool bad;
};

uint32_t lbox_message_u32(struct lbox_message *m);

/* The next string, which may hold no NUL. It is moved over its own length, so that it has a place
   for the NUL that ends it; it lives as long as the message. Never NULL. */
char *lbox_message_string(struct lbox_message *m);

#endif
