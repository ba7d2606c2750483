/* Requests as they come over the socket, checked. */
#ifndef LBOX_INIT_REQUEST_H
#define LBOX_INIT_REQUEST_H

#include <stddef.h>
#include <stdint.h>

struct lbox_request {
  uint32_t op, id;
  uint32_t number; /* keeper, file, follow, parents, port or rows */
  uint32_t signal, force, six, columns;
  const char *path, *to; /* in the message; never NULL, absolute when the op has them */
};

/* Reads a request from `bytes`, which it changes and the result points into. Returns 0, EINVAL for
   a message that is cut, too long or wrong, or ENOSYS for an unknown op; the id is set when it is
   there. */
int lbox_request_parse(char *bytes, size_t n, struct lbox_request *out);

struct lbox_command {
  char *cwd, **argv, **env; /* argv and env are owned, what they point to is in the message */
  int fds[3];               /* standard descriptors, owned by the caller */
  int status_fd;            /* where its keeper reports */
};

/* Reads cwd, argv and env in the same way. Returns 0, EINVAL or ENOMEM; then nothing is owned. */
int lbox_command_parse(char *bytes, size_t n, struct lbox_command *out);
void lbox_command_free(struct lbox_command *command);

#endif
