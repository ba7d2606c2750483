/*
** The HTTP server inside the engine: libmicrohttpd's epoll descriptor is watched by ours, and it
** runs when that is readable. Its callbacks touch C memory only; a request whose body is complete
** is suspended and put on a list, which Lua takes it from.
*/
#include "httpd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/util.h"

enum {
  CONNECTION_MEMORY = 32 * 1024, /* of a connection: request line, headers, the socket's buffers */
  MAX_ROUNDS = 8,                /* of libmicrohttpd in a row, before others get their turn */
  MAX_IDLE_ROUNDS = 3,           /* an answer takes up to two between callbacks */
  STUCK_US = 20000,
  FLUSH_INTERVAL_US = 200,
  MAX_TICK_US = 1000000
};

/* Sets the timer: every so often while there are connections to check for slowness, and after
   `soon_us` (0: not) for work that is left. */
static void set_timer(struct httpd *h, int64_t soon_us)
{
  bool want = h->connections > 0;
  if (want == h->ticking && soon_us == 0)
    return;
  int64_t us = h->limits.idle_us < h->limits.write_us ? h->limits.idle_us : h->limits.write_us;
  us = us / 4 < MAX_TICK_US ? us / 4 + 1 : MAX_TICK_US;
  struct itimerspec spec = {0};
  if (want) {
    spec.it_interval.tv_sec = us / 1000000;
    spec.it_interval.tv_nsec = us % 1000000 * 1000;
    spec.it_value = spec.it_interval;
  }
  if (soon_us > 0)
    spec.it_value = (struct timespec){.tv_nsec = soon_us * 1000};
  h->ticking = timerfd_settime(h->tick_fd, 0, &spec, NULL) == 0 && want;
}

/* Data that is read already raises no event any more: MHD_get_timeout tells of it. It also does of
   a connection whose buffer is full of a chunk's head without end; so rounds without progress end
   the run, and the next one comes later. */
void lbox__httpd_run(struct httpd *h)
{
  MHD_UNSIGNED_LONG_LONG wait = 0;
  bool more = true;
  int idle = 0;
  if (!h->daemon || h->running)
    return;
  h->running = true;
  h->dirty = false;
  for (int round = 0; more && round < MAX_ROUNDS && idle < MAX_IDLE_ROUNDS; round++) {
    uint64_t progress = h->progress;
    MHD_run(h->daemon);
    more = MHD_get_timeout(h->daemon, &wait) == MHD_YES && wait == 0;
    idle = h->progress == progress ? idle + 1 : 0;
  }
  h->running = false;
  h->ran_at = lbox_now_us();
  set_timer(h, !more ? 0 : idle < MAX_IDLE_ROUNDS ? 1 : STUCK_US);
}

void lbox__httpd_flush(struct httpd *h)
{
  if (lbox_now_us() - h->ran_at >= FLUSH_INTERVAL_US) {
    lbox__httpd_run(h);
    return;
  }
  h->dirty = true;
  lbox_engine_post(h->engine, &h->ready);
}

static void on_activity(void *ud, uint32_t events)
{
  (void)events;
  lbox__httpd_run(ud);
}

static void on_tick(void *ud, uint32_t events)
{
  struct httpd *h = ud;
  uint64_t expirations;
  (void)events;
  if (read(h->tick_fd, &expirations, sizeof expirations) != (ssize_t)sizeof expirations)
    return;
  lbox__peers_check(h);
  lbox__httpd_run(h);
}

/* Paths are decoded by the router, which knows segments: here they stay as they were sent. */
static size_t keep_escapes(void *ud, struct MHD_Connection *mhd, char *text)
{
  (void)ud;
  (void)mhd;
  return strlen(text);
}

static struct MHD_Daemon *start_daemon(struct httpd *h, int fd)
{
  /* Time limits are ours (httpd_peer.c). */
  return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL,
                          NULL, lbox__request_handle, h, MHD_OPTION_LISTEN_SOCKET, fd,
                          MHD_OPTION_CONNECTION_LIMIT, h->limits.connections,
                          MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                          (size_t)CONNECTION_MEMORY, MHD_OPTION_URI_LOG_CALLBACK, lbox__request_uri,
                          h, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
                          MHD_OPTION_NOTIFY_COMPLETED, lbox__request_completed, h,
                          MHD_OPTION_NOTIFY_CONNECTION, lbox__peer_notify, h, MHD_OPTION_END);
}

struct httpd *lbox__httpd_new(struct lbox_engine *e, int fd, const struct httpd_limits *limits,
                              struct lbox_err *err)
{
  *err = (struct lbox_err){.rc = LBOX_ENOMEM, .text = "the HTTP server cannot be started"};
  struct httpd *h = calloc(1, sizeof *h);
  if (!h) {
    close(fd);
    return NULL;
  }
  h->refs = 1;
  h->limits = *limits;
  h->limits.key = limits->key ? strdup(limits->key) : NULL;
  h->engine = lbox_engine_ref(e);
  h->ready.id = lbox_engine_next_id(e);
  h->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (limits->key && !h->limits.key) {
    close(fd);
    goto fail;
  }
  if (h->tick_fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
    err->rc = LBOX_ESYS;
    close(fd);
    goto fail;
  }
  h->daemon = start_daemon(h, fd);
  if (!h->daemon)
    goto fail;
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  if (info)
    h->activity = lbox_engine_watch(e, info->epoll_fd, EPOLLIN, on_activity, h, err);
  h->tick = lbox_engine_watch(e, h->tick_fd, EPOLLIN, on_tick, h, err);
  if (!h->activity || !h->tick)
    goto fail;
  lbox__httpd_run(h); /* from here on it listens */
  return h;

fail:
  lbox__httpd_stop(h);
  lbox__httpd_unref(h);
  return NULL;
}

void lbox__httpd_unref(struct httpd *h)
{
  if (--h->refs > 0)
    return;
  lbox_engine_unpost(h->engine, &h->ready);
  lbox_engine_unref(h->engine);
  free((char *)h->limits.key);
  free(h);
}

void lbox__httpd_quiesce(struct httpd *h)
{
  if (!h->daemon)
    return;
  MHD_socket fd = MHD_quiesce_daemon(h->daemon);
  if (fd != MHD_INVALID_SOCKET)
    close(fd);
}

static void drop_waiting(struct httpd *h)
{
  struct httpd_request *r;
  while ((r = lbox__httpd_accept(h)))
    lbox__request_drop(r);
}

void lbox__httpd_stop(struct httpd *h)
{
  if (h->stopping)
    return;
  h->stopping = true;
  if (h->activity)
    lbox_watch_close(h->activity);
  if (h->tick)
    lbox_watch_close(h->tick);
  if (h->tick_fd >= 0)
    close(h->tick_fd);
  h->activity = h->tick = NULL;
  /* In a forked child the connections are the parent's: shutting them down would end them there. */
  if (h->daemon && !lbox_engine_forked(h->engine)) {
    lbox__httpd_quiesce(h);
    drop_waiting(h);
    lbox__httpd_run(h); /* what is answered may still go out */
    /* libmicrohttpd aborts the process when it is stopped with a suspended or upgraded connection.
     */
    for (struct httpd_peer *p = h->peers; p; p = p->next) {
      if (p->request)
        lbox__request_end(p->request, false);
    }
    struct MHD_Daemon *daemon = h->daemon;
    h->daemon = NULL;
    MHD_stop_daemon(daemon);
  }
  h->daemon = NULL;
}

struct httpd_request *lbox__httpd_accept(struct httpd *h)
{
  struct httpd_request *r = h->waiting;
  if (!r)
    return NULL;
  h->waiting = r->next_waiting;
  if (!h->waiting)
    h->waiting_tail = NULL;
  h->waiting_count--;
  r->next_waiting = NULL;
  return r;
}
