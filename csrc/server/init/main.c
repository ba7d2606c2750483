/*
** lbox-init: pid 1 of a box. It does what the server asks over one socket (protocol.h), reaps
** orphans, and ends when the socket closes, which ends every process of the box with it.
**
** It runs as the box's user, next to programs that may want to harm it: it is not dumpable, so that
** they cannot trace it or open its descriptors, and the kernel shields pid 1 from their signals.
**
** `lbox-init PROCESSES BYTES` is told how many processes and threads the box may have, and how
** large a file may be; 0 stands for no limit.
**
** The server also runs it outside of boxes, as `lbox-init empty DIRECTORY`, to remove a box's
** files, as `lbox-init copy DIRECTORY NEW [UID]`, to copy them, to look after limits as
** `lbox-init size DIRECTORY` and `lbox-init memory LIMIT HOW`, as `lbox-init net`, to hold a box's
** network, and as root as `lbox-init tun UID PROGRAM ARGUMENT…` (net/tun.h).
*/
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/init/copy.h"
#include "server/init/files.h"
#include "server/init/freeze.h"
#include "server/init/keeper.h"
#include "server/init/ports.h"
#include "server/init/protocol.h"
#include "server/init/request.h"
#include "server/init/terminal.h"
#include "server/init/tree.h"
#include "server/init/usage.h"
#include "server/init/userns.h"
#include "server/net/holder.h"
#include "server/net/tun.h"

enum {
  MAX_FDS = 8,
  SPARE_FDS = 64 /* descriptors that no pipe gets */
};

/* What is listened to: the server, signals, and from PIPES on pipes of commands that have ended,
   from which what still comes is thrown away. No keeper has any of them. */
enum { CONTROL, SIGNALS, PIPES };
static struct {
  struct pollfd *list; /* with the descriptors owned */
  size_t count, size;
} heard;

struct passed {
  int fds[MAX_FDS];
  int count;
  bool cut; /* there was no room for all */
};

struct answer {
  char fields[64];
  size_t len;
  int fd; /* passed and closed, -1: none */
};

static bool listen_to(int fd)
{
  if (heard.count == heard.size) {
    size_t size = heard.size ? heard.size * 2 : 16;
    struct pollfd *list = realloc(heard.list, size * sizeof *list);
    if (!list)
      return false;
    heard.list = list;
    heard.size = size;
  }
  heard.list[heard.count++] = (struct pollfd){fd, POLLIN, 0};
  return true;
}

static _Noreturn void end(int code)
{
  lbox_files_abandon_all();
  _exit(code);
}

static void put(struct answer *a, const void *bytes, size_t n)
{
  memcpy(a->fields + a->len, bytes, n);
  a->len += n;
}

/* --- what is asked for ------------------------------------------------------------------------ */

static int read_command(int fd, char **bytes, size_t *len)
{
  struct stat st;
  if (fstat(fd, &st) != 0 || st.st_size <= 0 || st.st_size > LBOX_INIT_MAX_COMMAND)
    return EINVAL;
  *len = (size_t)st.st_size;
  *bytes = malloc(*len);
  if (!*bytes)
    return ENOMEM;
  for (size_t at = 0; at < *len;) {
    ssize_t n = pread(fd, *bytes + at, *len - at, (off_t)at);
    if (n <= 0)
      return EINVAL;
    at += (size_t)n;
  }
  return 0;
}

static int spawn(struct passed *p, struct answer *a)
{
  char *bytes = NULL;
  size_t len = 0;
  struct lbox_command command;
  if (p->count != 5)
    return EINVAL;
  int code = read_command(p->fds[0], &bytes, &len);
  if (code == 0)
    code = lbox_command_parse(bytes, len, &command);
  if (code == 0) {
    memcpy(command.fds, &p->fds[1], sizeof command.fds);
    command.status_fd = p->fds[4];
    close(p->fds[0]); /* it is not for the keeper, and the last takes its place */
    p->fds[0] = p->fds[--p->count];
    int pid = lbox_keeper_start(&command, heard.list, heard.count);
    uint32_t keeper = (uint32_t)pid;
    code = pid < 0 ? errno : 0;
    put(a, &keeper, sizeof keeper);
    lbox_command_free(&command);
  }
  free(bytes);
  return code;
}

/* Takes the descriptors over. One too many is closed: who writes to it is told by SIGPIPE. */
static int discard(struct passed *p)
{
  struct rlimit limit;
  if (p->count < 1 || p->count > 2)
    return EINVAL;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return errno;
  while (p->count > 0 && heard.count + SPARE_FDS < limit.rlim_cur) {
    int fd = p->fds[p->count - 1];
    fcntl(fd, F_SETFL, O_RDONLY | O_NONBLOCK);
    if (!listen_to(fd))
      return ENOMEM;
    p->count--;
  }
  return 0;
}

static void empty_pipe(size_t index)
{
  char bytes[16 * 1024];
  int fd = heard.list[index].fd;
  ssize_t n = read(fd, bytes, sizeof bytes);
  if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
    return;
  close(fd);
  heard.list[index] = heard.list[--heard.count];
}

static int create(const char *path, struct answer *a)
{
  uint32_t file = 0;
  int code = lbox_files_create(path, &a->fd, &file);
  put(a, &file, sizeof file);
  return code;
}

static void abandon(const struct answer *created)
{
  uint32_t file;
  memcpy(&file, created->fields, sizeof file);
  lbox_files_abandon(file);
}

static int stat_file(const char *path, int follow, struct answer *a)
{
  struct lbox_file_info info = {0};
  int code = lbox_files_stat(path, follow, &info);
  put(a, &info.type, sizeof info.type);
  put(a, &info.size, sizeof info.size);
  put(a, &info.mtime, sizeof info.mtime);
  put(a, &info.inode, sizeof info.inode);
  put(a, &info.mtime_ns, sizeof info.mtime_ns);
  return code;
}

static int handle(const struct lbox_request *r, struct passed *p, struct answer *a)
{
  switch (r->op) {
  case LBOX_INIT_SPAWN:
    return spawn(p, a);
  case LBOX_INIT_KILL:
    return lbox_keeper_kill((int)r->number, (int)r->signal, r->force != 0) ? 0 : ESRCH;
  case LBOX_INIT_DISCARD:
    return discard(p);
  case LBOX_INIT_OPEN:
    return lbox_files_open(r->path, &a->fd);
  case LBOX_INIT_CREATE:
    return create(r->path, a);
  case LBOX_INIT_COMMIT:
    return lbox_files_commit(r->number);
  case LBOX_INIT_ABANDON:
    return lbox_files_abandon(r->number);
  case LBOX_INIT_STAT:
    return stat_file(r->path, r->number != 0, a);
  case LBOX_INIT_LIST:
    return lbox_files_list(r->path, &a->fd);
  case LBOX_INIT_MKDIR:
    return lbox_files_mkdir(r->path, r->number != 0);
  case LBOX_INIT_RENAME:
    return rename(r->path, r->to) == 0 ? 0 : errno;
  case LBOX_INIT_REMOVE:
    return lbox_files_remove(r->path);
  case LBOX_INIT_CONNECT:
    return lbox_ports_connect(r->number, r->six != 0, &a->fd);
  case LBOX_INIT_FREEZE:
    return lbox_freeze();
  case LBOX_INIT_THAW:
    lbox_thaw();
    return 0;
  case LBOX_INIT_LISTEN:
    return lbox_ports_listen(r->number, &a->fd);
  case LBOX_INIT_TERMINAL:
    return lbox_terminal_open(r->number, r->columns, &a->fd);
  default:
    return ENOSYS;
  }
}

/* --- the socket ------------------------------------------------------------------------------- */

union control {
  struct cmsghdr head;
  char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
};

/* Receives one request into `bytes`. Returns its length; -1: the server is gone. */
static ssize_t receive(char *bytes, struct passed *p)
{
  union control control;
  struct iovec iov = {bytes, LBOX_INIT_MAX_MESSAGE};
  struct msghdr message = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control.space,
                           .msg_controllen = sizeof control.space};
  ssize_t n;
  do
    n = recvmsg(LBOX_INIT_FD, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  p->count = 0;
  p->cut = message.msg_flags & MSG_CTRUNC;
  if (n <= 0)
    return -1;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && p->count < MAX_FDS; i++)
      memcpy(&p->fds[p->count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
  }
  return n;
}

/* Returns 0 or an errno value. */
static int send_answer(uint32_t id, int32_t error, struct answer *a)
{
  union control control = {0};
  struct iovec iov[] = {{&id, sizeof id}, {&error, sizeof error}, {a->fields, a->len}};
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = error ? 2 : 3};
  if (a->fd >= 0) {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &a->fd, sizeof(int));
  }
  ssize_t n;
  do
    n = sendmsg(LBOX_INIT_FD, &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? errno : 0;
}

/* Sends an answer, or why its descriptor cannot be passed: programs of the box may have as many
   under way as there may be. What is never answered would be waited for without end, so if not even
   that can be said, this is the end. */
static void give_answer(const struct lbox_request *r, int32_t error, struct answer *a)
{
  int code = send_answer(r->id, error, a);
  if (code != 0 && a->fd >= 0) {
    struct answer none = {.fd = -1};
    if (r->op == LBOX_INIT_CREATE)
      abandon(a);
    code = send_answer(r->id, code, &none);
  }
  if (a->fd >= 0)
    close(a->fd);
  if (code != 0 && code != EPIPE && code != ECONNRESET)
    end(1);
}

static void serve_one(void)
{
  static char bytes[LBOX_INIT_MAX_MESSAGE];
  struct passed passed;
  ssize_t n = receive(bytes, &passed);
  if (n < 0)
    end(0);
  struct lbox_request r;
  struct answer a = {.fd = -1};
  int code = lbox_request_parse(bytes, (size_t)n, &r);
  if (code == 0)
    code = passed.cut ? EMFILE : handle(&r, &passed, &a);
  for (int i = 0; i < passed.count; i++)
    close(passed.fds[i]);
  give_answer(&r, code, &a);
}

/* --- start ------------------------------------------------------------------------------------ */

/* What the server started us with besides the socket is not for the box's commands to have. */
static void let_go_of_stdio(void)
{
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; fd++)
    dup2(null, fd);
  if (null > 2)
    close(null);
}

/* What a box has to have however it was left. A program of the box that puts something else there
   harms itself. */
static void make_directories(void)
{
  lbox_files_mkdir("/workspace/home", 1);
  lbox_files_mkdir("/home/boxuser", 1);
  if (mkdir("/tmp", 0700) == 0)
    chmod("/tmp", 01777);
}

/* Asks for short turns on the CPU, which come sooner: what lbox-init has to do is little, but must
   be done also among thousands of processes of the box that never rest. From Linux 6.12 on; before,
   this does nothing. Keepers and commands do not inherit it. */
static void ask_for_short_turns(void)
{
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t turn_ns, deadline_ns, period_ns;
  } how = {.size = sizeof how, .flags = SCHED_FLAG_RESET_ON_FORK, .turn_ns = 100000};
  how.nice = getpriority(PRIO_PROCESS, 0);
  syscall(SYS_sched_setattr, 0, &how, 0);
}

/* As many descriptors as there may be; commands get fewer (keeper.c), so that theirs cannot keep
   lbox-init from passing one. */
static void raise_limit(void)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

static void set_limit(__rlimit_resource_t resource, const char *text)
{
  long long most = text ? strtoll(text, NULL, 10) : 0;
  const struct rlimit limit = {(rlim_t)most, (rlim_t)most};
  if (most > 0)
    setrlimit(resource, &limit);
}

/* Processes are counted in the box's own user namespace, so that its user's others do not count:
   for that the limit has to be set in here (Linux 5.14). When memory is short the kernel looks for
   somebody to kill in a box first. Nothing of this can be taken back by the box's programs. */
static void bound(const char *processes, const char *file_bytes)
{
  set_limit(RLIMIT_NPROC, processes);
  set_limit(RLIMIT_FSIZE, file_bytes);
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    ssize_t n = write(fd, "1000", 4);
    (void)n;
    close(fd);
  }
}

static int serve(const char *processes, const char *file_bytes)
{
  sigset_t set;
  prctl(PR_SET_DUMPABLE, 0);
  fcntl(LBOX_INIT_FD, F_SETFD, FD_CLOEXEC);
  umask(022);
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  sigaddset(&set, LBOX_KEEPER_STAY);
  sigaddset(&set, LBOX_KEEPER_PASS_ON);
  sigprocmask(SIG_BLOCK, &set, NULL);
  if (signal_fd < 0 || !listen_to(LBOX_INIT_FD) || !listen_to(signal_fd))
    return 1;
  raise_limit();
  bound(processes, file_bytes);
  make_directories();
  let_go_of_stdio();
  ask_for_short_turns();

  struct answer up = {.fd = -1};
  give_answer(&(struct lbox_request){0}, 0, &up);
  for (;;) {
    if (poll(heard.list, heard.count, lbox_keeper_tend()) < 0 && errno != EINTR)
      end(1);
    struct signalfd_siginfo info;
    if (heard.list[SIGNALS].revents && read(signal_fd, &info, sizeof info) < 0 && errno != EAGAIN)
      end(1);
    /* From the last on: one that ends gives its place to the last, which has had its turn. */
    for (size_t i = heard.count - 1; i >= PIPES; i--) {
      if (heard.list[i].revents)
        empty_pipe(i);
    }
    if (heard.list[CONTROL].revents)
      serve_one();
  }
}

static int say(const char *what, int code)
{
  if (code != 0)
    fprintf(stderr, "%s: %s\n", what, strerror(code));
  return code != 0;
}

/* -1: it is no uid. */
static long parse_uid(const char *text)
{
  char *end = NULL;
  long uid = strtol(text, &end, 10);
  return !*text || *end || uid < 0 || uid > INT32_MAX ? -1 : uid;
}

/* Gives us power over what we own: a box may have closed some of it to its owner, and to open it
   would be to change it. Where we cannot have that, it is left closed. */
static void own_all(void)
{
  unsigned uid = geteuid(), gid = getegid();
  if (uid != 0 && unshare(CLONE_NEWUSER) == 0)
    (void)lbox_userns_map(uid, uid, gid, gid);
}

static int copy(const char *from, const char *to, const char *owner)
{
  long uid = owner ? parse_uid(owner) : -1;
  struct lbox_copied copied = {0};
  if (owner && uid < 0)
    return say(owner, EINVAL);
  raise_limit();
  umask(0);
  own_all();
  int code = lbox_tree_copy(from, to, uid, &copied);
  if (code == 0)
    printf("%llu\n", (unsigned long long)copied.bytes);
  return say(*copied.name ? copied.name : from, code);
}

static int size(const char *path)
{
  uint64_t bytes = 0;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  raise_limit();
  int code = lbox_tree_size(path, &bytes);
  if (code == 0)
    printf("%llu\n", (unsigned long long)bytes);
  return say(path, code);
}

/* The /proc of the box is passed as LBOX_INIT_FD. Prints how many were killed, and of the largest
   its bytes and its name. */
static int memory(const char *limit, bool quick)
{
  struct lbox_usage usage = {0};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int code = lbox_usage_keep(LBOX_INIT_FD, strtoull(limit, NULL, 10), quick, &usage);
  if (code == 0)
    printf("%u %llu %s\n", usage.killed, (unsigned long long)usage.bytes, usage.name);
  return say("memory", code);
}

int main(int argc, char **argv)
{
  if (argc == 1)
    return serve(NULL, NULL);
  if (argc == 3 && isdigit((unsigned char)*argv[1]))
    return serve(argv[1], argv[2]);
  if (argc == 3 && strcmp(argv[1], "size") == 0)
    return size(argv[2]);
  if (argc == 4 && strcmp(argv[1], "memory") == 0)
    return memory(argv[2], strcmp(argv[3], "quick") == 0);
  if (argc == 3 && strcmp(argv[1], "empty") == 0)
    return say(argv[2], lbox_tree_empty(argv[2]));
  if ((argc == 4 || argc == 5) && strcmp(argv[1], "copy") == 0)
    return copy(argv[2], argv[3], argv[4]);
  if (argc == 2 && strcmp(argv[1], "net") == 0)
    return lbox_net_hold();
  if (argc > 3 && strcmp(argv[1], "tun") == 0 && parse_uid(argv[2]) > 0)
    return say(argv[3], lbox_net_run_with_tun((uid_t)parse_uid(argv[2]), argv + 3));
  fputs("usage: lbox-init empty DIRECTORY | copy DIRECTORY NEW [UID] | size DIRECTORY | "
        "memory LIMIT quick|exact | net | tun UID PROGRAM…\n",
        stderr);
  return 2;
}
