#include "server/init/message.h"

#include <string.h>

static void give_up(struct lbox_message *m)
{
  m->bad = true;
  m->left = 0;
}

uint32_t lbox_message_u32(struct lbox_message *m)
{
  uint32_t value = 0;
  if (m->left < sizeof value) {
    give_up(m);
    return 0;
  }
  memcpy(&value, m->at, sizeof value);
  m->at += sizeof value;
  m->left -= sizeof value;
  return value;
}

char *lbox_message_string(struct lbox_message *m)
{
  static char empty[1];
  uint32_t len = lbox_message_u32(m);
  if (m->bad || len > m->left || memchr(m->at, 0, len)) {
    give_up(m);
    return empty;
  }
  char *text = m->at - sizeof len;
  memmove(text, m->at, len);
  text[len] = 0;
  m->at += len;
  m->left -= len;
  return text;
}
