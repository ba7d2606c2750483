/*
** lbox.server.posix: descriptors, files and sockets for the local server. Thin: each function is
*one
** or two system calls. What can fail in use gives nil, message, errno name; a wrong argument
*raises.
** Every descriptor made here is close-on-exec. Processes are in posix_process.c.
*/
#include "posix.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "modules.h"

enum { MAX_READ = 16 * 1024 * 1024, MAX_PASSED_FDS = 8 };

int lbox__fail(lua_State *L)
{
  int code = errno;
  lua_pushnil(L);
  lua_pushstring(L, strerror(code));
  lua_pushstring(L, strerrorname_np(code));
  return 3;
}

static int done(lua_State *L, int result)
{
  if (result != 0)
    return lbox__fail(L);
  lua_pushboolean(L, 1);
  return 1;
}

int lbox__check_fd(lua_State *L, int index)
{
  lua_Integer fd = luaL_checkinteger(L, index);
  luaL_argcheck(L, fd >= 0 && fd < 1 << 20, index, "not a file descriptor");
  return (int)fd;
}

static int push_fd(lua_State *L, int fd)
{
  if (fd < 0)
    return lbox__fail(L);
  lua_pushinteger(L, fd);
  return 1;
}

/* --- descriptors ------------------------------------------------------------------------------ */

/* pipe() -> read end, write end */
static int l_pipe(lua_State *L)
{
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0)
    return lbox__fail(L);
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

/* read(fd, max) -> bytes ("" at the end) */
static int l_read(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  lua_Integer max = luaL_checkinteger(L, 2);
  luaL_argcheck(L, max > 0 && max <= MAX_READ, 2, "1 to 16777216 bytes");
  luaL_Buffer b;
  char *bytes = luaL_buffinitsize(L, &b, (size_t)max);
  ssize_t n;
  do
    n = read(fd, bytes, (size_t)max);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return lbox__fail(L);
  luaL_pushresultsize(&b, (size_t)n);
  return 1;
}

/* write(fd, bytes, from = 1) -> number of bytes written */
static int l_write(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  lua_Integer from = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, from >= 1 && (size_t)from <= len + 1, 3, "out of the bytes");
  ssize_t n;
  do
    n = write(fd, bytes + from - 1, len - (size_t)from + 1);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return lbox__fail(L);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

static int l_close(lua_State *L)
{
  return done(L, close(lbox__check_fd(L, 1)));
}

static int l_set_nonblock(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  int flags = fcntl(fd, F_GETFL);
  return done(L, flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -1 : 0);
}

/* open(path, "read" | "write" | "append" | "rw" | "new", mode = 0600) -> fd */
static int l_open(lua_State *L)
{
  static const char *const names[] = {"read", "write", "append", "rw", "new", NULL};
  static const int flags[] = {O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_APPEND,
                              O_RDWR, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW};
  const char *path = luaL_checkstring(L, 1);
  int how = luaL_checkoption(L, 2, "read", names);
  return push_fd(
      L, open(path, flags[how] | O_CLOEXEC | O_NOCTTY, (mode_t)luaL_optinteger(L, 3, 0600)));
}

/* memfd(bytes) -> fd of an anonymous file with that content, positioned at its start */
static int l_memfd(lua_State *L)
{
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  int fd = memfd_create("lbox", MFD_CLOEXEC);
  if (fd < 0)
    return lbox__fail(L);
  for (size_t at = 0; at < len;) {
    ssize_t n = write(fd, bytes + at, len - at);
    if (n < 0 && errno != EINTR) {
      int code = errno;
      close(fd);
      errno = code;
      return lbox__fail(L);
    }
    at += n > 0 ? (size_t)n : 0;
  }
  lseek(fd, 0, SEEK_SET);
  return push_fd(L, fd);
}

static int l_fsync(lua_State *L)
{
  return done(L, fsync(lbox__check_fd(L, 1)));
}

/* fstat(fd) -> { type, size, mode } */
static int push_stat(lua_State *L, const struct stat *st)
{
  const char *type = S_ISREG(st->st_mode)   ? "file"
                     : S_ISDIR(st->st_mode) ? "directory"
                     : S_ISLNK(st->st_mode) ? "symlink"
                                            : "other";
  lua_createtable(L, 0, 6);
  lua_pushstring(L, type);
  lua_setfield(L, -2, "type");
  lua_pushinteger(L, (lua_Integer)st->st_size);
  lua_setfield(L, -2, "size");
  lua_pushinteger(L, (lua_Integer)(st->st_mode & 07777));
  lua_setfield(L, -2, "mode");
  lua_pushinteger(L, (lua_Integer)st->st_uid);
  lua_setfield(L, -2, "uid");
  lua_pushinteger(L, (lua_Integer)st->st_mtime);
  lua_setfield(L, -2, "mtime");
  return 1;
}

static int l_fstat(lua_State *L)
{
  struct stat st;
  if (fstat(lbox__check_fd(L, 1), &st) != 0)
    return lbox__fail(L);
  return push_stat(L, &st);
}

/* flock(path) -> fd that holds the lock until it is closed; EWOULDBLOCK when another has it */
static int l_flock(lua_State *L)
{
  int fd = open(luaL_checkstring(L, 1), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return lbox__fail(L);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    int code = errno;
    close(fd);
    errno = code;
    return lbox__fail(L);
  }
  return push_fd(L, fd);
}

/* signals{ "TERM", … } -> fd that is readable when one came; they do nothing else from then on */
static int l_signals(lua_State *L)
{
  static const struct {
    const char *name;
    int number;
  } known[] = {{"TERM", SIGTERM}, {"INT", SIGINT}, {"HUP", SIGHUP}, {"CHLD", SIGCHLD}};
  luaL_checktype(L, 1, LUA_TTABLE);
  sigset_t set;
  sigemptyset(&set);
  for (lua_Integer i = 1; lua_rawgeti(L, 1, i) != LUA_TNIL; i++) {
    const char *name = luaL_checkstring(L, -1);
    int number = 0;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
      number = strcmp(known[k].name, name) == 0 ? known[k].number : number;
    if (number == 0)
      return luaL_error(L, "no signal '%s'", name);
    sigaddset(&set, number);
    lua_pop(L, 1);
  }
  if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
    return lbox__fail(L);
  return push_fd(L, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/* --- paths -------------------------------------------------------------------------------------
 */

static int l_lstat(lua_State *L)
{
  struct stat st;
  if (lstat(luaL_checkstring(L, 1), &st) != 0)
    return lbox__fail(L);
  return push_stat(L, &st);
}

static int l_mkdir(lua_State *L)
{
  return done(L, mkdir(luaL_checkstring(L, 1), (mode_t)luaL_optinteger(L, 2, 0700)));
}

static int l_chmod(lua_State *L)
{
  return done(L, chmod(luaL_checkstring(L, 1), (mode_t)luaL_checkinteger(L, 2)));
}

/* lchown(path, uid, gid): never follows a link */
static int l_lchown(lua_State *L)
{
  return done(L, lchown(luaL_checkstring(L, 1), (uid_t)luaL_checkinteger(L, 2),
                        (gid_t)luaL_checkinteger(L, 3)));
}

static int l_rename(lua_State *L)
{
  return done(L, rename(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

static int l_unlink(lua_State *L)
{
  return done(L, unlink(luaL_checkstring(L, 1)));
}

static int l_rmdir(lua_State *L)
{
  return done(L, rmdir(luaL_checkstring(L, 1)));
}

static int l_symlink(lua_State *L)
{
  return done(L, symlink(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

static int push_link(lua_State *L, const char *path)
{
  char target[4096];
  ssize_t n = readlink(path, target, sizeof target);
  if (n < 0)
    return lbox__fail(L);
  lua_pushlstring(L, target, (size_t)n);
  return 1;
}

static int l_readlink(lua_State *L)
{
  return push_link(L, luaL_checkstring(L, 1));
}

/* exe_path() -> the running program's file */
static int l_exe_path(lua_State *L)
{
  return push_link(L, "/proc/self/exe");
}

/* listdir(path) -> names without . and .. */
static int l_listdir(lua_State *L)
{
  DIR *dir = opendir(luaL_checkstring(L, 1));
  if (!dir)
    return lbox__fail(L);
  lua_newtable(L);
  const struct dirent *entry;
  for (lua_Integer n = 1; (entry = readdir(dir));) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
      continue;
    lua_pushstring(L, entry->d_name);
    lua_rawseti(L, -2, n++);
  }
  closedir(dir);
  return 1;
}

static int l_umask(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)umask((mode_t)luaL_checkinteger(L, 1)));
  return 1;
}

static int l_getuid(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)geteuid());
  return 1;
}

static int l_getpid(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)getpid());
  return 1;
}

/* --- sockets -----------------------------------------------------------------------------------
 */

/* socketpair() -> two connected descriptors that keep messages apart (SOCK_SEQPACKET) */
static int l_socketpair(lua_State *L)
{
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0)
    return lbox__fail(L);
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

/* send(fd, bytes, { fds… }) -> true: one message, with descriptors passed */
static int l_send(lua_State *L)
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
  return done(L, sent < 0 ? -1 : 0);
}

/* recv(fd, max) -> bytes ("" at the end), { fds… }: one message; a cut one is an error */
static int l_recv(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  lua_Integer max = luaL_checkinteger(L, 2);
  luaL_argcheck(L, max > 0 && max <= MAX_READ, 2, "1 to 16777216 bytes");
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
  luaL_pushresultsize(&b, (size_t)n);
  lua_newtable(L);
  lua_Integer count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < fds; i++) {
      int passed;
      memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof passed);
      lua_pushinteger(L, passed);
      lua_rawseti(L, -2, ++count);
    }
  }
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    for (lua_Integer i = 1; i <= count; i++) {
      lua_rawgeti(L, -1, i);
      close((int)lua_tointeger(L, -1));
      lua_pop(L, 1);
    }
    errno = EMSGSIZE;
    return lbox__fail(L);
  }
  return 2;
}

static int listen_unix(lua_State *L, const char *path)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  luaL_argcheck(L, strlen(path) < sizeof address.sun_path, 1, "the socket's path is too long");
  memcpy(address.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
      listen(fd, 128) == 0) {
    lua_pushinteger(L, fd);
    return 1;
  }
  int code = errno;
  if (fd >= 0)
    close(fd);
  errno = code;
  return lbox__fail(L);
}

/* listen{ unix = path } or { host = numeric IPv4 or IPv6, port = n } -> fd, port */
static int l_listen(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getfield(L, 1, "unix") != LUA_TNIL)
    return listen_unix(L, luaL_checkstring(L, -1));
  lua_getfield(L, 1, "host");
  const char *host = luaL_checkstring(L, -1);
  lua_getfield(L, 1, "port");
  lua_Integer port = luaL_checkinteger(L, -1);
  luaL_argcheck(L, port >= 0 && port <= 65535, 1, "port must be 0 to 65535");
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address = {0};
  socklen_t len = sizeof address.v4;
  if (inet_pton(AF_INET, host, &address.v4.sin_addr) == 1) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons((uint16_t)port);
  } else if (inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1) {
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_port = htons((uint16_t)port);
    len = sizeof address.v6;
  } else {
    errno = EADDRNOTAVAIL;
    return lbox__fail(L);
  }
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int one = 1;
  if (fd < 0)
    return lbox__fail(L);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, &address.any, len) != 0 || listen(fd, 128) != 0 ||
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
static int l_accept(lua_State *L)
{
  int fd = accept4(lbox__check_fd(L, 1), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  int one = 1;
  if (fd >= 0)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return push_fd(L, fd);
}

/* reset(fd): closes a TCP connection so that the peer sees a reset */
static int l_reset(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  struct linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  return done(L, close(fd));
}

static const luaL_Reg functions[] = {{"accept", l_accept},
                                     {"chmod", l_chmod},
                                     {"close", l_close},
                                     {"exe_path", l_exe_path},
                                     {"flock", l_flock},
                                     {"fstat", l_fstat},
                                     {"fsync", l_fsync},
                                     {"getpid", l_getpid},
                                     {"getuid", l_getuid},
                                     {"lchown", l_lchown},
                                     {"listdir", l_listdir},
                                     {"listen", l_listen},
                                     {"lstat", l_lstat},
                                     {"memfd", l_memfd},
                                     {"mkdir", l_mkdir},
                                     {"open", l_open},
                                     {"pipe", l_pipe},
                                     {"read", l_read},
                                     {"readlink", l_readlink},
                                     {"recv", l_recv},
                                     {"rename", l_rename},
                                     {"reset", l_reset},
                                     {"rmdir", l_rmdir},
                                     {"send", l_send},
                                     {"set_nonblock", l_set_nonblock},
                                     {"signals", l_signals},
                                     {"socketpair", l_socketpair},
                                     {"symlink", l_symlink},
                                     {"umask", l_umask},
                                     {"unlink", l_unlink},
                                     {"write", l_write},
                                     {"kill", lbox__l_kill},
                                     {"spawn", lbox__l_spawn},
                                     {"waitid", lbox__l_waitid},
                                     {NULL, NULL}};

int luaopen_lbox_server_posix(lua_State *L)
{
  luaL_newlib(L, functions);
  return 1;
}
