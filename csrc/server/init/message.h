/* Reading a message field by field, each within bounds. After the first field that is not there,
   every further one is empty and `bad` stays set. */
#ifndef LBOX_INIT_MESSAGE_H
#define LBOX_INIT_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lbox_message {
  char *at; /* borrowed */
  size_t left;
  bool bad;
};

uint32_t lbox_message_u32(struct lbox_message *m);

/* The next string, ended by a NUL that is written over the byte after it; `base` must therefore
   have one byte more than the message. A NUL inside makes the message bad. */
char *lbox_message_string(struct lbox_message *m);

#endif
