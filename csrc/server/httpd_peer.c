/*
** Client connections: whether the client is still there, which libmicrohttpd does not notice while
** a connection is suspended, and whether it is fast enough.
**
** One rule limits time: a client has to move something within each limit. It must have sent a whole
** request head that long after it connected or got its last answer, each further block of its body
** that long after the one before, and it must take each block of an answer. So neither a client
** that stops nor one that sends a byte a minute holds a connection. Who has not sent the key has
** less time, and least when connections get scarce.
*/
#include "httpd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "core/util.h"

enum {
  STRANGER_US = 10000000,
  CROWDED_US = 1000000,
  HANGUP_US = 1000000 /* for what a client sent before it hung up */
};

struct httpd_peer *lbox__peer_of(struct MHD_Connection *mhd)
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info ? info->socket_context : NULL;
}

static void on_hangup(void *ud, uint32_t events)
{
  struct httpd_peer *p = ud;
  struct httpd *h = p->server;
  (void)events;
  lbox_watch_close(p->hangup);
  p->hangup = NULL;
  if (p->request) {
    lbox__request_hangup(p->request);
    lbox__httpd_flush(h);
  }
}

static void find_address(const struct httpd_peer *p, struct httpd_address *out)
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(p->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (!info || !info->client_addr)
    return;
  const struct sockaddr *address = info->client_addr;
  struct ucred peer;
  socklen_t len = sizeof peer;
  switch (address->sa_family) {
  case AF_UNIX:
    if (getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
      return;
    out->uid = peer.uid;
    break;
  case AF_INET:
    memcpy(&out->net.in, address, sizeof out->net.in);
    break;
  case AF_INET6:
    memcpy(&out->net.in6, address, sizeof out->net.in6);
    break;
  default:
    return;
  }
  out->family = address->sa_family;
}

static struct httpd_peer *open_peer(struct httpd *h, struct MHD_Connection *mhd)
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
  struct lbox_err err;
  if (!info)
    return NULL;
  struct httpd_peer *p = calloc(1, sizeof *p);
  if (!p)
    return NULL;
  p->server = h;
  p->mhd = mhd;
  p->fd = info->connect_fd;
  find_address(p, &p->address);
  /* The descriptor is in libmicrohttpd's epoll set too, but only there for reading and writing. */
  p->hangup = lbox_engine_watch(h->engine, p->fd, EPOLLRDHUP, on_hangup, p, &err);
  if (!p->hangup) {
    free(p);
    return NULL;
  }
  p->next = h->peers;
  if (p->next)
    p->next->prev = p;
  h->peers = p;
  h->connections++;
  lbox__peer_enter(p, PHASE_HEAD);
  return p;
}

static void close_peer(struct httpd_peer *p)
{
  struct httpd *h = p->server;
  if (p->hangup)
    lbox_watch_close(p->hangup);
  *(p->prev ? &p->prev->next : &h->peers) = p->next;
  if (p->next)
    p->next->prev = p->prev;
  h->connections--;
  h->progress++;
  free(p);
}

/* Called before libmicrohttpd closes the descriptor. A connection that could not be noted is
   refused with its first request. */
void lbox__peer_notify(void *server, struct MHD_Connection *mhd, void **socket_data,
                       enum MHD_ConnectionNotificationCode code)
{
  if (code == MHD_CONNECTION_NOTIFY_STARTED) {
    *socket_data = open_peer(server, mhd);
  } else if (*socket_data) {
    close_peer(*socket_data);
    *socket_data = NULL;
  }
}

void lbox__peer_enter(struct httpd_peer *p, enum httpd_phase phase)
{
  p->phase = phase;
  p->moved = 0;
  p->moved_at = lbox_now_us();
  p->server->progress++;
}

void lbox__peer_moved(struct httpd_peer *p, size_t n)
{
  p->server->progress++;
  p->moved += n;
  if (p->moved >= LBOX_HTTPD_BLOCK) {
    p->moved = 0;
    p->moved_at = lbox_now_us();
  }
}

static bool is_waited_for(const struct httpd_peer *p)
{
  switch (p->phase) {
  case PHASE_HANDLER:
    return false;
  case PHASE_ANSWER:
    return !p->request || !p->request->suspended; /* suspended: there is nothing to send */
  default:
    return true;
  }
}

static int64_t limit_of(const struct httpd_peer *p)
{
  const struct httpd *h = p->server;
  if (p->phase == PHASE_ANSWER)
    return h->limits.write_us;
  int64_t limit = h->limits.idle_us, less = limit;
  if (!p->hangup)
    less =
        HANGUP_US; /* libmicrohttpd does not see it while the buffer of a request's head is full */
  else if (!p->known)
    less = h->connections > h->limits.connections / 4 * 3 ? CROWDED_US : STRANGER_US;
  return less < limit ? less : limit;
}

void lbox__peers_check(struct httpd *h)
{
  int64_t now = lbox_now_us();
  for (const struct httpd_peer *p = h->peers; p; p = p->next) {
    /* libmicrohttpd sees an end and closes. */
    if (is_waited_for(p) && now - p->moved_at > limit_of(p))
      shutdown(p->fd, SHUT_RDWR);
  }
}
