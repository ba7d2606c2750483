/* Pseudo-terminals: what a server does with the master of one that a box has opened. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "posix.h"

/* tty_peer(master) -> the other end, whatever is mounted where; an error unless it is a master */
int lbox__l_tty_peer(lua_State *L)
{
  int fd = ioctl(lbox__check_fd(L, 1), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  return fd < 0 ? lbox__fail(L) : lbox__push_fd(L, fd);
}

/* tty_resize(fd, rows, columns) -> true; who has the terminal hears of it */
int lbox__l_tty_resize(lua_State *L)
{
  struct winsize size = {.ws_row = (unsigned short)luaL_checkinteger(L, 2),
                         .ws_col = (unsigned short)luaL_checkinteger(L, 3)};
  return lbox__done(L, ioctl(lbox__check_fd(L, 1), TIOCSWINSZ, &size));
}

/* dup(fd) -> another descriptor of the same */
int lbox__l_dup(lua_State *L)
{
  int fd = fcntl(lbox__check_fd(L, 1), F_DUPFD_CLOEXEC, 3);
  return fd < 0 ? lbox__fail(L) : lbox__push_fd(L, fd);
}
