#include "server/init/request.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "server/init/message.h"
#include "server/init/protocol.h"

static const char *take_path(struct lbox_message *m)
{
  const char *path = lbox_message_string(m);
  if (*path != '/')
    m->bad = true;
  return path;
}

static bool take_fields(struct lbox_message *m, struct lbox_request *r)
{
  switch (r->op) {
  case LBOX_INIT_SPAWN:
  case LBOX_INIT_DISCARD:
  case LBOX_INIT_FREEZE:
  case LBOX_INIT_THAW:
    return true;
  case LBOX_INIT_KILL:
    r->number = lbox_message_u32(m);
    r->signal = lbox_message_u32(m);
    r->force = lbox_message_u32(m);
    m->bad = m->bad || r->signal < 1 || r->signal > 64;
    return true;
  case LBOX_INIT_COMMIT:
  case LBOX_INIT_ABANDON:
    r->number = lbox_message_u32(m);
    return true;
  case LBOX_INIT_STAT:
  case LBOX_INIT_MKDIR:
    r->number = lbox_message_u32(m);
    r->path = take_path(m);
    return true;
  case LBOX_INIT_OPEN:
  case LBOX_INIT_CREATE:
  case LBOX_INIT_LIST:
  case LBOX_INIT_REMOVE:
    r->path = take_path(m);
    return true;
  case LBOX_INIT_CONNECT:
    r->number = lbox_message_u32(m);
    r->six = lbox_message_u32(m);
    m->bad = m->bad || r->number < 1 || r->number > 65535;
    return true;
  case LBOX_INIT_TERMINAL:
    r->number = lbox_message_u32(m);
    r->columns = lbox_message_u32(m);
    m->bad = m->bad || r->number > 65535 || r->columns > 65535;
    return true;
  case LBOX_INIT_LISTEN:
    r->number = lbox_message_u32(m);
    m->bad = m->bad || r->number < 1 || r->number > 65535;
    return true;
  case LBOX_INIT_RENAME:
    r->path = take_path(m);
    r->to = take_path(m);
    return true;
  default:
    return false;
  }
}

int lbox_request_parse(char *bytes, size_t n, struct lbox_request *out)
{
  struct lbox_message m = {bytes, n, false};
  *out = (struct lbox_request){.path = "", .to = ""};
  out->op = lbox_message_u32(&m);
  out->id = lbox_message_u32(&m);
  if (m.bad)
    return EINVAL;
  if (!take_fields(&m, out))
    return ENOSYS;
  return m.bad || m.left > 0 ? EINVAL : 0;
}

/* A list of strings as a NULL-ended vector; NULL when memory is short. */
static char **take_list(struct lbox_message *m)
{
  uint32_t count = lbox_message_u32(m);
  if (count > m->left / sizeof count) {
    m->bad = true;
    count = 0;
  }
  char **list = calloc((size_t)count + 1, sizeof *list);
  for (uint32_t i = 0; list && i < count; i++)
    list[i] = lbox_message_string(m);
  return list;
}

int lbox_command_parse(char *bytes, size_t n, struct lbox_command *out)
{
  struct lbox_message m = {bytes, n, false};
  *out = (struct lbox_command){.fds = {-1, -1, -1}, .status_fd = -1};
  out->cwd = lbox_message_string(&m);
  out->argv = take_list(&m);
  out->env = take_list(&m);
  int code = !out->argv || !out->env                              ? ENOMEM
             : m.bad || m.left > 0 || !out->argv[0] || !*out->cwd ? EINVAL
                                                                  : 0;
  if (code != 0)
    lbox_command_free(out);
  return code;
}

void lbox_command_free(struct lbox_command *command)
{
  free(command->argv);
  free(command->env);
  command->argv = command->env = NULL;
}
