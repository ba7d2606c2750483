/*
** lbox-init: pid 1 of a box. It does what the server asks over one socket (protocol.h), reaps
*orphans,
** and ends when the socket closes, which ends every process of the box with it.
**
** It runs as the box's user, next to programs that may want to harm it: it is not dumpable, so that
** they cannot trace it or open its descriptors, and the kernel shields pid 1 from their signals.
*/
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/init/files.h"
#include "server/init/keeper.h"
#include "server/init/message.h"
#include "server/init/protocol.h"

enum { MAX_FDS = 8, MAX_WORDS = 65536 };

struct request {
  struct lbox_message message;
  int fds[MAX_FDS];
  int fd_count;
};

struct answer {
  int error;
  char fields[4096];
  size_t len;
  int fd; /* passed and closed, -1: none */
};

static void put(struct answer *a, const void *bytes, size_t n)
{
  if (a->len + n <= sizeof a->fields) {
    memcpy(a->fields + a->len, bytes, n);
    a->len += n;
  }
}

/* --- spawn -------------------------------------------------------------------------------------
 */

/* The words of a list in the message, as a NULL-ended vector that the caller frees; NULL: bad. */
static char **words(struct lbox_message *m)
{
  uint32_t count = lbox_message_u32(m);
  if (m->bad || count > MAX_WORDS)
    return NULL;
  char **list = calloc((size_t)count + 1, sizeof *list);
  for (uint32_t i = 0; list && i < count; i++)
    list[i] = lbox_message_string(m);
  return list;
}

static char *read_all(int fd, size_t *len)
{
  struct stat st;
  if (fstat(fd, &st) != 0 || st.st_size < 0 || st.st_size > LBOX_INIT_MAX_SPAWN)
    return NULL;
  *len = (size_t)st.st_size;
  char *bytes = malloc(*len + 1);
  for (size_t at = 0; bytes && at < *len;) {
    ssize_t n = pread(fd, bytes + at, *len - at, (off_t)at);
    if (n <= 0) {
      free(bytes);
      return NULL;
    }
    at += (size_t)n;
  }
  return bytes;
}

static int spawn(const struct request *r, int control_fd, int signal_fd, struct answer *a)
{
  if (r->fd_count != 5)
    return EINVAL;
  size_t len;
  char *bytes = read_all(r->fds[0], &len);
  if (!bytes)
    return EINVAL;
  struct lbox_message m = {bytes, len, false};
  struct lbox_command command = {
      .fds = {r->fds[1], r->fds[2], r->fds[3]},
      .status_fd = r->fds[4],
  };
  command.cwd = lbox_message_string(&m);
  command.argv = words(&m);
  command.env = words(&m);
  int code = EINVAL;
  if (!m.bad && command.argv && command.argv[0] && command.env) {
    int32_t pid = lbox_keeper_start(&command, control_fd, signal_fd);
    code = pid < 0 ? errno : 0;
    put(a, &pid, sizeof pid);
  }
  free(command.argv);
  free(command.env);
  free(bytes);
  return code;
}

/* --- one request -------------------------------------------------------------------------------
 */

static int open_file(struct lbox_message *m, struct answer *a)
{
  uint32_t create = lbox_message_u32(m);
  const char *path = lbox_message_string(m);
  if (m->bad || *path != '/')
    return EINVAL;
  if (!create)
    return lbox_files_open(path, &a->fd);
  char name[4000];
  int code = lbox_files_create(path, &a->fd, name, sizeof name);
  if (code == 0) {
    uint32_t len = (uint32_t)strlen(name);
    put(a, &len, sizeof len);
    put(a, name, len);
  }
  return code;
}

static int stat_file(struct lbox_message *m, struct answer *a)
{
  uint32_t follow = lbox_message_u32(m);
  const char *path = lbox_message_string(m);
  struct lbox_file_info info;
  if (m->bad || *path != '/')
    return EINVAL;
  int code = lbox_files_stat(path, follow != 0, &info);
  if (code == 0) {
    put(a, &info.type, sizeof info.type);
    put(a, &info.size, sizeof info.size);
    put(a, &info.mtime, sizeof info.mtime);
  }
  return code;
}

static int handle(uint32_t op, struct request *r, int control_fd, int signal_fd, struct answer *a)
{
  struct lbox_message *m = &r->message;
  const char *path, *to;
  uint32_t number;
  switch (op) {
  case LBOX_INIT_SPAWN:
    return spawn(r, control_fd, signal_fd, a);
  case LBOX_INIT_KILL:
    number = lbox_message_u32(m);
    if (m->bad || number < 2)
      return EINVAL;
    lbox_keeper_kill((int)number);
    return 0;
  case LBOX_INIT_OPEN:
    return open_file(m, a);
  case LBOX_INIT_STAT:
    return stat_file(m, a);
  case LBOX_INIT_LIST:
    path = lbox_message_string(m);
    return m->bad || *path != '/' ? EINVAL : lbox_files_list(path, &a->fd);
  case LBOX_INIT_MKDIR:
    number = lbox_message_u32(m);
    path = lbox_message_string(m);
    return m->bad || *path != '/' ? EINVAL : lbox_files_mkdir(path, number != 0);
  case LBOX_INIT_RENAME:
    path = lbox_message_string(m);
    to = lbox_message_string(m);
    if (m->bad || *path != '/' || *to != '/')
      return EINVAL;
    return rename(path, to) == 0 ? 0 : errno;
  case LBOX_INIT_REMOVE:
    path = lbox_message_string(m);
    if (m->bad || *path != '/')
      return EINVAL;
    return unlink(path) == 0 ? 0 : errno;
  default:
    return ENOSYS;
  }
}

/* --- the socket --------------------------------------------------------------------------------
 */

union control {
  struct cmsghdr head;
  char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
};

/* Receives one request into `bytes`. Returns its length; 0: the server is gone. */
static size_t receive(int fd, char *bytes, struct request *r)
{
  union control control;
  struct iovec iov = {bytes, LBOX_INIT_MAX_MESSAGE};
  struct msghdr message = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control.space,
                           .msg_controllen = sizeof control.space};
  ssize_t n;
  do
    n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  r->fd_count = 0;
  for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL; c;
       c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && r->fd_count < MAX_FDS; i++)
      memcpy(&r->fds[r->fd_count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
  }
  return n > 0 ? (size_t)n : 0;
}

static void send_answer(int fd, uint32_t id, struct answer *a)
{
  union control control = {0};
  int32_t error = a->error;
  struct iovec iov[] = {{&id, sizeof id}, {&error, sizeof error}, {a->fields, a->len}};
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = a->error ? 2 : 3};
  if (a->fd >= 0) {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &a->fd, sizeof(int));
  }
  while (sendmsg(fd, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
    ;
  if (a->fd >= 0)
    close(a->fd);
}

static void serve_one(int control_fd, int signal_fd)
{
  static char bytes[LBOX_INIT_MAX_MESSAGE + 1];
  struct request r;
  size_t n = receive(control_fd, bytes, &r);
  if (n == 0)
    _exit(0);
  r.message = (struct lbox_message){bytes, n, false};
  uint32_t op = lbox_message_u32(&r.message);
  uint32_t id = lbox_message_u32(&r.message);
  struct answer a = {.fd = -1};
  a.error = r.message.bad ? EINVAL : handle(op, &r, control_fd, signal_fd, &a);
  for (int i = 0; i < r.fd_count; i++)
    close(r.fds[i]);
  send_answer(control_fd, id, &a);
}

int main(void)
{
  int control_fd = LBOX_INIT_FD;
  prctl(PR_SET_DUMPABLE, 0);
  fcntl(control_fd, F_SETFD, FD_CLOEXEC);
  umask(022);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signal_fd < 0)
    return 1;

  /* The first thing the server hears: the box is up. */
  struct answer ready = {.fd = -1};
  send_answer(control_fd, 0, &ready);

  struct pollfd fds[] = {{control_fd, POLLIN, 0}, {signal_fd, POLLIN, 0}};
  for (;;) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR)
      return 1;
    struct signalfd_siginfo info;
    if (fds[1].revents && read(signal_fd, &info, sizeof info) > 0) {
      while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    }
    if (fds[0].revents)
      serve_one(control_fd, signal_fd);
  }
}
