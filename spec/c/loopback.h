/*
** A loopback HTTP/1.1 server in a forked process, one more process per connection. The path names
** how it behaves, see serve_one. What it counts lies in memory shared with the test.
*/
#ifndef LBOX_LOOPBACK_H
#define LBOX_LOOPBACK_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BIG_SIZE = 8 * 1024 * 1024 };

struct loopback_shared {
  atomic_int connections; /* accepted so far */
  atomic_int farewells;   /* connections closed by /answer-then-close */
  atomic_int executions;  /* of the work a path does */
  atomic_long bytes_out;  /* of /big */
};

struct loopback {
  pid_t pid;
  int port;
  char unix_path[64];
  struct loopback_shared *shared;
};

struct loopback_request {
  char method[16], path[128];
  char head[8192]; /* the whole head as it came */
  char *body;
  size_t body_len;
};

static inline bool put(int fd, const void *bytes, size_t n)
{
  const char *p = bytes;
  while (n > 0) {
    ssize_t wrote = send(fd, p, n, MSG_NOSIGNAL);
    if (wrote <= 0)
      return false;
    p += wrote;
    n -= (size_t)wrote;
  }
  return true;
}

static inline bool say(int fd, const char *text)
{
  return put(fd, text, strlen(text));
}

static inline bool answer(int fd, const char *status, const char *body, size_t n)
{
  char head[256];
  snprintf(head, sizeof head,
           "HTTP/1.1 %s\r\nX-Answer: first\r\nX-answer:  second\r\nContent-Length: %zu\r\n\r\n",
           status, n);
  return say(fd, head) && put(fd, body, n);
}

static inline bool get_head(int fd, struct loopback_request *r)
{
  size_t n = 0;
  while (n + 1 < sizeof r->head) {
    if (recv(fd, r->head + n, 1, 0) != 1)
      return false;
    r->head[++n] = 0;
    if (r->head[0] == 0x16) /* TLS, which this is not */
      return say(fd, "HTTP/1.1 400 Bad Request\r\n\r\n") && false;
    if (n >= 4 && memcmp(r->head + n - 4, "\r\n\r\n", 4) == 0)
      return sscanf(r->head, "%15s %127s", r->method, r->path) == 2;
  }
  return false;
}

static inline bool get_body(int fd, struct loopback_request *r)
{
  const char *length = strcasestr(r->head, "\ncontent-length:");
  r->body_len = length ? strtoul(length + 16, NULL, 10) : 0;
  r->body = malloc(r->body_len + 1);
  for (size_t got = 0; got < r->body_len;) {
    ssize_t n = recv(fd, r->body + got, r->body_len - got, 0);
    if (n <= 0)
      return false;
    got += (size_t)n;
  }
  return true;
}

static inline void wait_for_hang_up(int fd)
{
  char sink[4096];
  while (recv(fd, sink, sizeof sink, 0) > 0)
    ;
}

/* 8 MB whose every byte tells its place. */
static inline void stream_big(int fd, struct loopback_shared *shared)
{
  unsigned char chunk[8192];
  char head[64];
  snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG_SIZE);
  say(fd, head);
  for (size_t at = 0; at < BIG_SIZE; at += sizeof chunk) {
    for (size_t i = 0; i < sizeof chunk; i++)
      chunk[i] = (unsigned char)((at + i) % 251);
    if (!put(fd, chunk, sizeof chunk))
      return;
    atomic_fetch_add(&shared->bytes_out, (long)sizeof chunk);
  }
}

static inline void send_many_headers(int fd)
{
  say(fd, "HTTP/1.1 200 OK\r\n");
  for (int i = 0; i < 2000; i++) {
    char line[64];
    snprintf(line, sizeof line, "X-Header-%04d: 0123456789012345678901234567890\r\n", i);
    if (!say(fd, line))
      return;
  }
  say(fd, "Content-Length: 0\r\n\r\n");
}

static inline void send_filled(int fd, const char *status, size_t n)
{
  char *body = malloc(n);
  memset(body, 'e', n);
  answer(fd, status, body, n);
  free(body);
}

/* False: the connection is to be closed. */
static inline bool serve_one(int fd, struct loopback_request *r, struct loopback_shared *shared,
                             int connection)
{
  const char *path = r->path;
  if (strcmp(path, "/echo") == 0)
    return answer(fd, "200 OK", r->body, r->body_len);
  if (strcmp(path, "/head") == 0)
    return answer(fd, "200 OK", r->head, strlen(r->head));
  if (strcmp(path, "/connection") == 0) {
    char text[16];
    int n = snprintf(text, sizeof text, "%d", connection);
    return answer(fd, "200 OK", text, (size_t)n);
  }
  if (strcmp(path, "/work-then-close") == 0) {
    atomic_fetch_add(&shared->executions, 1);
  } else if (strcmp(path, "/answer-then-close") == 0) {
    answer(fd, "200 OK", "bye", 3);
    shutdown(fd, SHUT_RDWR);
    atomic_fetch_add(&shared->farewells, 1);
  } else if (strcmp(path, "/big") == 0) {
    stream_big(fd, shared);
  } else if (strcmp(path, "/cut") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
  } else if (strcmp(path, "/cut-chunk") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
  } else if (strcmp(path, "/cut-headers") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nContent-Le");
  } else if (strcmp(path, "/chunks") == 0) {
    return say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                   "6\r\n world\r\n0\r\nX-Trailer: no\r\n\r\n");
  } else if (strcmp(path, "/informational") == 0) {
    return say(fd, "HTTP/1.1 103 Early Hints\r\nX-Early: yes\r\n\r\n") &&
           answer(fd, "202 Accepted", "late", 4);
  } else if (strcmp(path, "/headers") == 0) {
    send_many_headers(fd);
  } else if (strcmp(path, "/error") == 0) {
    send_filled(fd, "500 Broken", 200000);
  } else if (strcmp(path, "/filled") == 0) {
    send_filled(fd, "200 OK", 200000);
  } else if (strcmp(path, "/garbage") == 0) {
    say(fd, "SSH-2.0-OpenSSH_9.2\r\n\r\n");
  } else if (strcmp(path, "/stall") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin");
    wait_for_hang_up(fd);
  } else if (strcmp(path, "/silent") == 0) {
    wait_for_hang_up(fd);
  }
  return false;
}

static inline void serve_connection(int fd, struct loopback_shared *shared, int connection)
{
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* in vain on AF_UNIX */
  for (bool open = true; open;) {
    struct loopback_request r = {.body = NULL};
    open = get_head(fd, &r);
    if (open && strcmp(r.path, "/unread") == 0) {
      for (;;)
        pause(); /* takes nothing more of the body */
    }
    if (open && strcmp(r.path, "/reset") == 0) {
      struct linger hard = {.l_onoff = 1};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
      return;
    }
    open = open && get_body(fd, &r) && serve_one(fd, &r, shared, connection);
    free(r.body);
  }
}

static inline void serve_forever(const int *listeners, struct loopback_shared *shared)
{
  struct pollfd polled[2] = {{.fd = listeners[0], .events = POLLIN},
                             {.fd = listeners[1], .events = POLLIN}};
  signal(SIGCHLD, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (poll(polled, 2, -1) >= 0) {
    for (int i = 0; i < 2; i++) {
      int fd = (polled[i].revents & POLLIN) ? accept(listeners[i], NULL, NULL) : -1;
      if (fd < 0)
        continue;
      int connection = atomic_fetch_add(&shared->connections, 1) + 1;
      if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve_connection(fd, shared, connection);
        _exit(0);
      }
      close(fd);
    }
  }
}

static inline int listen_tcp(int *port, int backlog)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, backlog) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &len) != 0)
    abort();
  *port = ntohs(address.sin_port);
  return fd;
}

static inline int listen_unix(const char *path)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0)
    abort();
  return fd;
}

static inline void loopback_start(struct loopback *server)
{
  snprintf(server->unix_path, sizeof server->unix_path, "/tmp/lbox-test-%d.sock", (int)getpid());
  int listeners[2] = {listen_tcp(&server->port, 512), listen_unix(server->unix_path)};
  server->shared =
      mmap(NULL, sizeof *server->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (server->shared == MAP_FAILED)
    abort();
  server->pid = fork();
  if (server->pid == 0) {
    serve_forever(listeners, server->shared);
    _exit(0);
  }
  close(listeners[0]);
  close(listeners[1]);
}

static inline void loopback_stop(struct loopback *server)
{
  kill(server->pid, SIGKILL);
  waitpid(server->pid, NULL, 0);
  unlink(server->unix_path);
  munmap(server->shared, sizeof *server->shared);
}

#endif
