#include "server/init/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

int lbox_terminal_open(uint32_t rows, uint32_t columns, int *master)
{
  struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
  int unlocked = 0;
  /* Not /dev/ptmx: a program of the box can put something else there, and not here. */
  int fd = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0)
    return errno;
  if (ioctl(fd, TIOCSPTLCK, &unlocked) != 0 || ioctl(fd, TIOCSWINSZ, &size) != 0) {
    int code = errno;
    close(fd);
    return code;
  }
  *master = fd;
  return 0;
}
