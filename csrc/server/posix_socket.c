/* lbox.server.posix: sockets. */
#include "posix.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_MESSAGE = 16 * 1024 * 1024, MAX_PASSED_FDS = 8 };

/* socketpair() -> two connected descriptors that keep messages apart (SOCK_SEQPACKET) */
int lbox__l_socketpair(lua_State *L)
{
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0)
    return lbox__fail(L);
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

/* send(fd, bytes, { fds… }) -> true: one message, with descriptors passed */
int lbox__l_send(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  union {
    struct cmsghdr head;
    char space[CMSG_SPACE(sizeof(int) * MAX_PASSED_FDS)];
  } control = {0};
  struct iovec iov = {(void *)(uintptr_t)bytes, len};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  int fds[MAX_PASSED_FDS];
  size_t n = 0;
  if (!lua_isnoneornil(L, 3)) {
    luaL_checktype(L, 3, LUA_TTABLE);
    n = lua_rawlen(L, 3);
    luaL_argcheck(L, n <= MAX_PASSED_FDS, 3, "too many descriptors");
    for (size_t i = 0; i < n; i++) {
      lua_rawgeti(L, 3, (lua_Integer)i + 1);
      fds[i] = lbox__check_fd(L, -1);
      lua_pop(L, 1);
    }
  }
  if (n > 0) {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * n);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
  }
  ssize_t sent;
  do
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return lbox__done(L, sent < 0 ? -1 : 0);
}

/* Takes the descriptors out of what came with a message; returns their number. */
static size_t passed_fds(struct msghdr *message, int fds[MAX_PASSED_FDS])
{
  size_t count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds + count, CMSG_DATA(c), n * sizeof(int));
    count += n;
  }
  return count;
}

/* recv(fd, max) -> bytes ("" at the end), { fds… }, lost: one message. `lost` is true when this
   process had no room for all descriptors passed: then there are none. A message cut otherwise is
   an error. */
int lbox__l_recv(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  lua_Integer max = luaL_checkinteger(L, 2);
  luaL_argcheck(L, max > 0 && max <= MAX_MESSAGE, 2, "1 to 16777216 bytes");
  union {
    struct cmsghdr head;
    char space[CMSG_SPACE(sizeof(int) * MAX_PASSED_FDS)];
  } control;
  luaL_Buffer b;
  struct iovec iov = {luaL_buffinitsize(L, &b, (size_t)max), (size_t)max};
  struct msghdr message = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control.space,
                           .msg_controllen = sizeof control.space};
  ssize_t n;
  do
    n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return lbox__fail(L);
  int fds[MAX_PASSED_FDS];
  size_t count = passed_fds(&message, fds);
  bool lost = message.msg_flags & MSG_CTRUNC;
  /* With all places taken it was not this process that had no room. */
  bool cut = (message.msg_flags & MSG_TRUNC) || (lost && count == MAX_PASSED_FDS);
  while ((cut || lost) && count > 0)
    close(fds[--count]);
  if (cut) {
    errno = EMSGSIZE;
    return lbox__fail(L);
  }
  luaL_pushresultsize(&b, (size_t)n);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    lua_pushinteger(L, fds[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushboolean(L, lost);
  return 3;
}

static int listen_unix(lua_State *L, const char *path)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  luaL_argcheck(L, strlen(path) < sizeof address.sun_path, 1, "the socket's path is too long");
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
      listen(fd, SOMAXCONN) == 0) {
    lua_pushinteger(L, fd);
    return 1;
  }
  int code = errno;
  if (fd >= 0)
    close(fd);
  errno = code;
  return lbox__fail(L);
}

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

/* Reads { host = numeric IPv4 or IPv6, port = n } at index 1. Returns the length of the address; 0:
   the host is no address. */
static socklen_t check_address(lua_State *L, union address *out)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_getfield(L, 1, "host");
  const char *host = luaL_checkstring(L, -1);
  lua_getfield(L, 1, "port");
  lua_Integer port = luaL_checkinteger(L, -1);
  luaL_argcheck(L, port >= 0 && port <= 65535, 1, "port must be 0 to 65535");
  memset(out, 0, sizeof *out);
  if (inet_pton(AF_INET, host, &out->v4.sin_addr) == 1) {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons((uint16_t)port);
    return sizeof out->v4;
  } else if (inet_pton(AF_INET6, host, &out->v6.sin6_addr) == 1) {
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons((uint16_t)port);
    return sizeof out->v6;
  }
  errno = EADDRNOTAVAIL;
  return 0;
}

/* connect{ host = numeric IPv4 or IPv6, port = n } -> fd, non-blocking, which may still be
   connecting: it can be written to when it no longer is, and socket_error tells how it went */
int lbox__l_connect(lua_State *L)
{
  union address address;
  socklen_t len = check_address(L, &address);
  int one = 1;
  if (len == 0)
    return lbox__fail(L);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return lbox__fail(L);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(fd, &address.any, len) != 0 && errno != EINPROGRESS) {
    int code = errno;
    close(fd);
    errno = code;
    return lbox__fail(L);
  }
  return lbox__push_fd(L, fd);
}

/* send_datagram(path, bytes) -> true, to a Unix socket; a first '@' stands for the abstract kind */
int lbox__l_send_datagram(lua_State *L)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t path_len, len;
  const char *path = luaL_checklstring(L, 1, &path_len);
  const char *bytes = luaL_checklstring(L, 2, &len);
  if (path_len >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return lbox__fail(L);
  }
  memcpy(address.sun_path, path, path_len);
  if (*path == '@')
    address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return lbox__fail(L);
  ssize_t n = sendto(fd, bytes, len, MSG_NOSIGNAL, (const struct sockaddr *)&address,
                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_len));
  int code = errno;
  close(fd);
  errno = code;
  return lbox__done(L, n < 0 ? -1 : 0);
}

/* listen{ unix = path } or { host = numeric IPv4 or IPv6, port = n } -> fd, port */
int lbox__l_listen(lua_State *L)
{
  union address address;
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getfield(L, 1, "unix") != LUA_TNIL)
    return listen_unix(L, luaL_checkstring(L, -1));
  socklen_t len = check_address(L, &address);
  if (len == 0)
    return lbox__fail(L);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int one = 1;
  if (fd < 0)
    return lbox__fail(L);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, &address.any, len) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, &address.any, &len) != 0) {
    int code = errno;
    close(fd);
    errno = code;
    return lbox__fail(L);
  }
  lua_pushinteger(L, fd);
  lua_pushinteger(
      L, ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port));
  return 2;
}

/* accept(fd) -> fd, non-blocking */
int lbox__l_accept(lua_State *L)
{
  int fd = accept4(lbox__check_fd(L, 1), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  int one = 1;
  if (fd >= 0)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return lbox__push_fd(L, fd);
}

/* socket_error(fd) -> true when the socket is well (connected, if it was connecting) */
int lbox__l_socket_error(lua_State *L)
{
  int code = 0;
  socklen_t len = sizeof code;
  if (getsockopt(lbox__check_fd(L, 1), SOL_SOCKET, SO_ERROR, &code, &len) != 0)
    return lbox__fail(L);
  errno = code;
  return lbox__done(L, code == 0 ? 0 : -1);
}

/* shut(fd): nothing more will be written to the socket */
int lbox__l_shut(lua_State *L)
{
  return lbox__done(L, shutdown(lbox__check_fd(L, 1), SHUT_WR));
}

/* reset(fd): closes a TCP connection so that the peer sees a reset */
int lbox__l_reset(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  struct linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  return lbox__done(L, close(fd));
}
