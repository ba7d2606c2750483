/*
** libcurl's multi handle on the engine's epoll set. libcurl names the sockets and the time it waits
** for; its callbacks only note them down, and all work is done from step.
*/
#include "core/http_internal.h"
#include "core/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* Transfers resumed per step: each may hand over what libcurl held back for it. */
enum { RESUME_BUDGET = 64 };

struct curl_socket {
  struct lbox_engine *engine;
  curl_socket_t fd;
  struct lbox_watch *watch; /* owned */
  struct curl_socket *prev, *next;
};

static void free_socket(struct curl_socket *s)
{
  *(s->prev ? &s->prev->next : &s->engine->sockets) = s->next;
  if (s->next)
    s->next->prev = s->prev;
  lbox_watch_close(s->watch);
  free(s);
}

/* After an error the state of every transfer is unknown: all fail, and libcurl starts anew. */
static void note(struct lbox_engine *e, CURLMcode code)
{
  if (code != CURLM_OK)
    e->multi_broken = true;
}

static void on_ready(void *ud, uint32_t events)
{
  const struct curl_socket *s = ud;
  struct lbox_engine *e = s->engine;
  int mask = ((events & EPOLLIN) ? CURL_CSELECT_IN : 0) |
             ((events & EPOLLOUT) ? CURL_CSELECT_OUT : 0) |
             ((events & (EPOLLERR | EPOLLHUP)) ? CURL_CSELECT_ERR : 0);
  int running;
  note(e, curl_multi_socket_action(e->multi, s->fd, mask, &running));
}

static int add_socket(struct lbox_engine *e, curl_socket_t fd, uint32_t events)
{
  struct lbox_err err;
  struct curl_socket *s = calloc(1, sizeof *s);
  if (!s)
    return -1;
  *s = (struct curl_socket){.engine = e, .fd = fd, .next = e->sockets};
  s->watch = lbox_engine_watch(e, fd, events, on_ready, s, &err);
  if (!s->watch) {
    free(s);
    return -1;
  }
  if (s->next)
    s->next->prev = s;
  e->sockets = s;
  curl_multi_assign(e->multi, fd, s);
  return 0;
}

/* libcurl does not tell that the peer of an upgrade hung up, as long as something may yet be sent;
   it only loses interest in the socket, other than when it is we who do not read. */
static void note_hang_up(CURL *easy)
{
  struct lbox_http *h = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&h);
  if (!h || !h->upgrade || !h->headers_complete || h->paused)
    return;
  h->hung_up = true;
  lbox__http_resume(h);
}

/* Called by libcurl at any time, also while it is being closed; -1 breaks the multi handle. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ud, void *socket_ud)
{
  struct lbox_engine *e = ud;
  struct curl_socket *s = socket_ud;
  if (what == CURL_POLL_REMOVE) {
    note_hang_up(easy);
    if (s)
      free_socket(s);
    curl_multi_assign(e->multi, fd, NULL);
    return 0;
  }
  uint32_t events =
      ((what & CURL_POLL_IN) ? EPOLLIN : 0u) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0u);
  if (!s)
    return add_socket(e, fd, events);
  return lbox_watch_set(s->watch, events) ? 0 : -1;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ud)
{
  struct lbox_engine *e = ud;
  (void)multi;
  e->curl_at = timeout_ms < 0 ? -1 : lbox_now_us() + (int64_t)timeout_ms * 1000;
  lbox__engine_changed(e);
  return 0;
}

enum lbox_rc lbox__multi_open(struct lbox_engine *e, struct lbox_err *err)
{
  const curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);
  if (version->version_num < 0x075700 || !(version->features & CURL_VERSION_ASYNCHDNS)) {
    *err = (struct lbox_err){.rc = LBOX_ECURL};
    snprintf(err->text, sizeof err->text,
             "libcurl 7.87 or newer with asynchronous name resolution is needed, this is %s",
             version->version);
    return err->rc;
  }
  e->multi = curl_multi_init();
  if (!e->multi) {
    lbox__err_memory(err);
    return err->rc;
  }
  curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e);
  curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e);
  return LBOX_OK;
}

static void close_multi(struct lbox_engine *e)
{
  curl_multi_cleanup(e->multi); /* calls on_socket */
  e->multi = NULL;
  e->curl_at = -1;
  for (struct curl_socket *s = e->sockets, *next; s; s = next) {
    next = s->next;
    free_socket(s);
  }
}

void lbox__multi_close(struct lbox_engine *e)
{
  struct lbox__pipe_guard guard;
  lbox__pipe_block(&guard);
  while (e->requests)
    lbox__http_abort(e->requests, LBOX_HTTP_CANCELLED, "the engine was closed");
  close_multi(e);
  lbox__pipe_restore(&guard);
}

static void rebuild(struct lbox_engine *e)
{
  struct lbox_err err;
  while (e->requests)
    lbox__http_abort(e->requests, LBOX_HTTP_OTHER, "libcurl lost its state");
  close_multi(e);
  e->multi_broken = false;
  lbox__multi_open(e, &err); /* without memory there is none, and the next request says so */
}

/* Transfers whose reader has caught up go on, and those that have something to send. Unpausing may
   call the callbacks, and so pause again. When they refuse, libcurl tells only here. */
static void resume_paused(struct lbox_engine *e)
{
  for (int i = 0; i < RESUME_BUDGET && e->resume_head; i++) {
    struct lbox_http *h = e->resume_head;
    e->resume_head = h->next_resume;
    bool held = h->paused && !h->caught_up;
    h->resuming = h->caught_up = h->send_paused = false;
    h->paused = held;
    CURLcode code = curl_easy_pause(h->easy, held ? CURLPAUSE_RECV : CURLPAUSE_CONT);
    if (code != CURLE_OK)
      lbox__http_complete(h, code);
  }
}

static void take_finished(struct lbox_engine *e)
{
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(e->multi, &left))) {
    if (message->msg != CURLMSG_DONE)
      continue;
    struct lbox_http *h = NULL;
    CURLcode code = message->data.result; /* the message dies with the handle */
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&h);
    lbox__http_complete(h, code);
  }
}

void lbox__multi_work(struct lbox_engine *e)
{
  if (!e->multi)
    return;
  resume_paused(e);
  if (e->curl_at >= 0 && lbox_now_us() >= e->curl_at) {
    int running;
    e->curl_at = -1;
    note(e, curl_multi_socket_action(e->multi, CURL_SOCKET_TIMEOUT, 0, &running));
  }
  take_finished(e);
  if (e->multi_broken)
    rebuild(e);
}
