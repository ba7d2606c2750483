/*
** lbox.server.posix: descriptors, files and sockets for the local server. Thin: each function is
** one or two system calls. What can fail in use gives nil, message, errno name; a wrong argument
** raises. Every descriptor made here is close-on-exec. Sockets are in posix_socket.c, processes in
** posix_process.c, the roots of boxes in posix_root.c.
*/
#include "posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modules.h"

enum { MAX_READ = 16 * 1024 * 1024 };

int lbox__fail(lua_State *L)
{
  int code = errno;
  lua_pushnil(L);
  lua_pushstring(L, strerror(code));
  lua_pushstring(L, strerrorname_np(code));
  return 3;
}

int lbox__done(lua_State *L, int result)
{
  if (result != 0)
    return lbox__fail(L);
  lua_pushboolean(L, 1);
  return 1;
}

int lbox__check_fd(lua_State *L, int index)
{
  lua_Integer fd = luaL_checkinteger(L, index);
  luaL_argcheck(L, fd >= 0 && fd < LBOX__MAX_FD, index, "not a file descriptor");
  return (int)fd;
}

int lbox__push_fd(lua_State *L, int fd)
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

/* seek(fd, offset): from the start */
static int l_seek(lua_State *L)
{
  off_t to = lseek(lbox__check_fd(L, 1), (off_t)luaL_checkinteger(L, 2), SEEK_SET);
  return lbox__done(L, to < 0 ? -1 : 0);
}

/* write(fd, bytes, from = 1, max = all) -> number of bytes written */
static int l_write(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  lua_Integer from = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, from >= 1 && (size_t)from <= len + 1, 3, "out of the bytes");
  size_t left = len - (size_t)from + 1;
  lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)left);
  luaL_argcheck(L, max >= 0, 4, "must not be negative");
  left = (size_t)max < left ? (size_t)max : left;
  ssize_t n;
  do
    n = write(fd, bytes + from - 1, left);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return lbox__fail(L);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

static int l_close(lua_State *L)
{
  return lbox__done(L, close(lbox__check_fd(L, 1)));
}

static int l_set_nonblock(lua_State *L)
{
  int fd = lbox__check_fd(L, 1);
  int flags = fcntl(fd, F_GETFL);
  return lbox__done(L, flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -1 : 0);
}

/* open(path, "read" | "write" | "append" | "rw" | "new", mode = 0600) -> fd */
static int l_open(lua_State *L)
{
  static const char *const names[] = {"read", "write", "append", "rw", "new", NULL};
  static const int flags[] = {O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
                              O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, O_RDWR,
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW};
  const char *path = luaL_checkstring(L, 1);
  int how = luaL_checkoption(L, 2, "read", names);
  return lbox__push_fd(
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
  return lbox__push_fd(L, fd);
}

static int l_fsync(lua_State *L)
{
  return lbox__done(L, fsync(lbox__check_fd(L, 1)));
}

/* truncate(fd): empties the file */
static int l_truncate(lua_State *L)
{
  return lbox__done(L, ftruncate(lbox__check_fd(L, 1), 0));
}

/* available(fd) -> number of bytes that a pipe or socket holds now */
static int l_available(lua_State *L)
{
  int n = 0;
  if (ioctl(lbox__check_fd(L, 1), FIONREAD, &n) != 0)
    return lbox__fail(L);
  lua_pushinteger(L, n);
  return 1;
}

/* strerror(number) -> message, errno name */
static int l_strerror(lua_State *L)
{
  int code = (int)luaL_checkinteger(L, 1);
  const char *name = strerrorname_np(code);
  lua_pushstring(L, strerror(code));
  lua_pushstring(L, name ? name : "EUNKNOWN");
  return 2;
}

/* fstat(fd) -> { type, size, mode } */
static int push_stat(lua_State *L, const struct stat *st)
{
  const char *type = S_ISREG(st->st_mode)   ? "file"
                     : S_ISDIR(st->st_mode) ? "directory"
                     : S_ISLNK(st->st_mode) ? "symlink"
                                            : "other";
  lua_createtable(L, 0, 7);
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
  lua_pushfstring(L, "%I:%I", (LUAI_UACINT)st->st_dev, (LUAI_UACINT)st->st_ino);
  lua_setfield(L, -2, "id");
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
  int fd = open(luaL_checkstring(L, 1), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return lbox__fail(L);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    int code = errno;
    close(fd);
    errno = code;
    return lbox__fail(L);
  }
  return lbox__push_fd(L, fd);
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
  return lbox__push_fd(L, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/* --- paths ------------------------------------------------------------------------------------ */

static int l_lstat(lua_State *L)
{
  struct stat st;
  if (lstat(luaL_checkstring(L, 1), &st) != 0)
    return lbox__fail(L);
  return push_stat(L, &st);
}

static int l_mkdir(lua_State *L)
{
  return lbox__done(L, mkdir(luaL_checkstring(L, 1), (mode_t)luaL_optinteger(L, 2, 0700)));
}

static int l_chmod(lua_State *L)
{
  return lbox__done(L, chmod(luaL_checkstring(L, 1), (mode_t)luaL_checkinteger(L, 2)));
}

/* lchown(path, uid, gid): never follows a link */
static int l_lchown(lua_State *L)
{
  return lbox__done(L, lchown(luaL_checkstring(L, 1), (uid_t)luaL_checkinteger(L, 2),
                              (gid_t)luaL_checkinteger(L, 3)));
}

static int l_rename(lua_State *L)
{
  return lbox__done(L, rename(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

static int l_unlink(lua_State *L)
{
  return lbox__done(L, unlink(luaL_checkstring(L, 1)));
}

static int l_rmdir(lua_State *L)
{
  return lbox__done(L, rmdir(luaL_checkstring(L, 1)));
}

static int l_symlink(lua_State *L)
{
  return lbox__done(L, symlink(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
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

static const luaL_Reg functions[] = {{"available", l_available},
                                     {"mount_points", lbox__l_mount_points},
                                     {"pidfd_kill", lbox__l_pidfd_kill},
                                     {"pidfd_open", lbox__l_pidfd_open},
                                     {"strerror", l_strerror},
                                     {"truncate", l_truncate},
                                     {"accept", lbox__l_accept},
                                     {"address", lbox__l_address},
                                     {"address_text", lbox__l_address_text},
                                     {"chmod", l_chmod},
                                     {"close", l_close},
                                     {"connect", lbox__l_connect},
                                     {"dup", lbox__l_dup},
                                     {"exe_path", l_exe_path},
                                     {"flock", l_flock},
                                     {"fstat", l_fstat},
                                     {"fsync", l_fsync},
                                     {"getpid", l_getpid},
                                     {"getuid", l_getuid},
                                     {"lchown", l_lchown},
                                     {"listdir", l_listdir},
                                     {"listen", lbox__l_listen},
                                     {"lstat", l_lstat},
                                     {"memfd", l_memfd},
                                     {"mkdir", l_mkdir},
                                     {"open", l_open},
                                     {"own_addresses", lbox__l_own_addresses},
                                     {"pipe", l_pipe},
                                     {"read", l_read},
                                     {"readlink", l_readlink},
                                     {"recv", lbox__l_recv},
                                     {"rename", l_rename},
                                     {"reset", lbox__l_reset},
                                     {"rmdir", l_rmdir},
                                     {"seek", l_seek},
                                     {"send", lbox__l_send},
                                     {"send_datagram", lbox__l_send_datagram},
                                     {"set_nonblock", l_set_nonblock},
                                     {"shut", lbox__l_shut},
                                     {"signals", l_signals},
                                     {"socket_error", lbox__l_socket_error},
                                     {"socketpair", lbox__l_socketpair},
                                     {"symlink", l_symlink},
                                     {"tty_peer", lbox__l_tty_peer},
                                     {"tty_resize", lbox__l_tty_resize},
                                     {"umask", l_umask},
                                     {"unlink", l_unlink},
                                     {"write", l_write},
                                     {"box_proc", lbox__l_box_proc},
                                     {"disk", lbox__l_disk},
                                     {"usage", lbox__l_usage},
                                     {"kill_all", lbox__l_kill_all},
                                     {"kill", lbox__l_kill},
                                     {"raise_nofile_limit", lbox__l_raise_nofile_limit},
                                     {"spawn", lbox__l_spawn},
                                     {"waitid", lbox__l_waitid},
                                     {"watch_addresses", lbox__l_watch_addresses},
                                     {NULL, NULL}};

int luaopen_lbox_server_posix(lua_State *L)
{
  luaL_newlib(L, functions);
  return 1;
}
