/* What lbox-init reads from its socket. Whatever it is: strings that come out lie in the message
   and end in it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/init/message.c"
#include "server/init/request.c"

static void inside(const char *text, const char *bytes, size_t n)
{
  if (*text && !(text >= bytes && text + strlen(text) < bytes + n))
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
  struct lbox_request request;
  struct lbox_command command;
  char *bytes = malloc(n ? n : 1);
  if (!bytes)
    return 0;
  memcpy(bytes, input, n);
  if (lbox_request_parse(bytes, n, &request) == 0) {
    inside(request.path, bytes, n);
    inside(request.to, bytes, n);
  }
  memcpy(bytes, input, n);
  if (lbox_command_parse(bytes, n, &command) == 0) {
    inside(command.cwd, bytes, n);
    for (char **word = command.argv; *word; word++)
      inside(*word, bytes, n);
    for (char **word = command.env; *word; word++)
      inside(*word, bytes, n);
    lbox_command_free(&command);
  }
  free(bytes);
  return 0;
}
