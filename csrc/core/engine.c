#include "core/engine.h"
#include "core/engine_internal.h"
#include "core/util.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Events worked off per step, so that an editor stays smooth. */
enum { STEP_BUDGET = 64 };

struct lbox_watch {
  struct lbox_engine *engine; /* borrowed: a watch is closed before its engine goes */
  int fd;
  bool added;  /* whether it is in the epoll set */
  bool closed; /* in the graveyard until the step that may still name it is over */
  uint32_t events;
  lbox_watch_fn fn;
  void *ud;
  struct lbox_watch *next_dead;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
  curl_global_init(CURL_GLOBAL_DEFAULT);
}

void lbox__err_sys(struct lbox_err *err, const char *what)
{
  err->rc = LBOX_ESYS;
  err->code = errno;
  snprintf(err->text, sizeof err->text, "%s: %s", what, strerror(errno));
}

static void signal_host(struct lbox_engine *e)
{
  bool want = e->woken || e->ready_head || e->resume_head;
  if (want == e->signalled || e->closed)
    return;
  uint64_t one = 1;
  if (want)
    e->signalled = write(e->wake_fd, &one, sizeof one) == (ssize_t)sizeof one;
  else
    e->signalled = read(e->wake_fd, &one, sizeof one) != (ssize_t)sizeof one;
}

/* The timer shows the nearer of libcurl's time and the host's deadline. */
static void arm_timer(struct lbox_engine *e)
{
  int64_t at = e->deadline_at;
  if (e->curl_at >= 0 && (at < 0 || e->curl_at < at))
    at = e->curl_at;
  if (at == e->armed_at || e->closed)
    return;
  e->armed_at = at;
  struct itimerspec spec = {0};
  if (at >= 0) {
    spec.it_value.tv_sec = at / 1000000;
    spec.it_value.tv_nsec = (at % 1000000) * 1000;
    if (spec.it_value.tv_sec == 0 && spec.it_value.tv_nsec == 0)
      spec.it_value.tv_nsec = 1; /* all zero would disarm */
  }
  timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void lbox__engine_curl_timer(struct lbox_engine *e, int64_t at_us)
{
  e->curl_at = at_us;
  arm_timer(e);
}

void lbox__engine_signal(struct lbox_engine *e)
{
  signal_host(e);
}

/* The wake-up and the timer only make the descriptor readable; step looks at the state itself. */
static void on_own_fd(void *ud, uint32_t events)
{
  (void)ud;
  (void)events;
}

static void on_timer(void *ud, uint32_t events)
{
  struct lbox_engine *e = ud;
  uint64_t expirations;
  (void)events;
  if (read(e->timer_fd, &expirations, sizeof expirations) == (ssize_t)sizeof expirations)
    e->armed_at = -1;
}

static void free_engine(struct lbox_engine *e)
{
  lbox_engine_close(e);
  free(e);
}

enum lbox_rc lbox_engine_new(struct lbox_engine **out, struct lbox_err *err)
{
  pthread_once(&curl_once, init_curl);
  struct lbox_engine *e = calloc(1, sizeof *e);
  if (!e) {
    *err = (struct lbox_err){.rc = LBOX_ENOMEM, .text = "not enough memory"};
    return LBOX_ENOMEM;
  }
  e->refs = 1;
  e->pid = getpid();
  e->deadline_at = e->curl_at = e->armed_at = -1;
  e->epoll_fd = e->wake_fd = e->timer_fd = -1;

  e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (e->epoll_fd >= 0)
    e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (e->wake_fd >= 0)
    e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (e->timer_fd < 0) {
    lbox__err_sys(err, "cannot make the event descriptors");
    goto fail;
  }
  e->wake_watch = lbox_engine_watch(e, e->wake_fd, EPOLLIN, on_own_fd, e, err);
  e->timer_watch = lbox_engine_watch(e, e->timer_fd, EPOLLIN, on_timer, e, err);
  if (!e->wake_watch || !e->timer_watch)
    goto fail;
  if (lbox__http_open(e, err) != LBOX_OK)
    goto fail;
  *out = e;
  return LBOX_OK;

fail:
  free_engine(e);
  return err->rc;
}

struct lbox_engine *lbox_engine_ref(struct lbox_engine *e)
{
  e->refs++;
  return e;
}

void lbox_engine_unref(struct lbox_engine *e)
{
  if (e && --e->refs == 0)
    free_engine(e);
}

static void bury(struct lbox_engine *e)
{
  while (e->dead) {
    struct lbox_watch *w = e->dead;
    e->dead = w->next_dead;
    free(w);
  }
}

void lbox_engine_close(struct lbox_engine *e)
{
  if (e->closed)
    return;
  if (!lbox_engine_forked(e))
    lbox__http_close(e);
  e->closed = true;
  if (e->wake_watch)
    lbox_watch_close(e->wake_watch);
  if (e->timer_watch)
    lbox_watch_close(e->timer_watch);
  e->wake_watch = e->timer_watch = NULL;
  int fds[] = {e->timer_fd, e->wake_fd, e->epoll_fd};
  for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
    if (fds[i] >= 0)
      close(fds[i]);
  }
  e->timer_fd = e->wake_fd = e->epoll_fd = -1;
  bury(e);
}

bool lbox_engine_closed(const struct lbox_engine *e)
{
  return e->closed;
}

bool lbox_engine_forked(const struct lbox_engine *e)
{
  return getpid() != e->pid;
}

int lbox_engine_pollfd(const struct lbox_engine *e)
{
  return e->epoll_fd;
}

int64_t lbox_engine_timeout(const struct lbox_engine *e)
{
  if (e->woken || e->ready_head || e->resume_head)
    return 0;
  int64_t at = e->armed_at;
  if (at < 0)
    return -1;
  int64_t left = at - lbox_now_us();
  return left <= 0 ? 0 : (left + 999) / 1000;
}

static int wait_time(const struct lbox_engine *e, int64_t max_wait_ms)
{
  if (e->woken || e->ready_head || e->resume_head)
    return 0;
  if (max_wait_ms < 0)
    return -1;
  return max_wait_ms > INT32_MAX ? INT32_MAX : (int)max_wait_ms;
}

static void run_watches(struct lbox_engine *e, int64_t max_wait_ms)
{
  struct epoll_event events[STEP_BUDGET];
  int n = epoll_wait(e->epoll_fd, events, STEP_BUDGET, wait_time(e, max_wait_ms));
  for (int i = 0; i < n; i++) {
    struct lbox_watch *w = events[i].data.ptr;
    if (!w->closed)
      w->fn(w->ud, events[i].events);
  }
}

bool lbox_engine_step(struct lbox_engine *e, int64_t max_wait_ms)
{
  if (e->closed)
    return false;
  /* A peer that closed must show as an error of the transfer, not as a signal to the host. */
  sigset_t pipe_set, old_set, pending;
  sigemptyset(&pipe_set);
  sigaddset(&pipe_set, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_set, &old_set);

  e->stepping++;
  run_watches(e, max_wait_ms);
  int64_t now = lbox_now_us();
  if (e->curl_at >= 0 && now >= e->curl_at) {
    e->curl_at = -1;
    lbox__http_timeout(e);
  }
  lbox__http_work(e);
  if (e->deadline_at >= 0 && now >= e->deadline_at)
    e->deadline_at = -1;
  arm_timer(e);
  if (--e->stepping == 0)
    bury(e);
  signal_host(e);

  if (!sigismember(&old_set, SIGPIPE) && !sigismember(&pending, SIGPIPE)) {
    struct timespec none = {0};
    while (sigtimedwait(&pipe_set, NULL, &none) < 0 && errno == EINTR)
      ;
  }
  pthread_sigmask(SIG_SETMASK, &old_set, NULL);
  return e->ready_head != NULL;
}

uint64_t lbox_engine_ready(struct lbox_engine *e)
{
  struct lbox_ready *node = e->ready_head;
  if (!node)
    return 0;
  lbox_engine_unpost(e, node);
  return node->id;
}

void lbox_engine_deadline(struct lbox_engine *e, int64_t at_us)
{
  e->deadline_at = at_us;
  arm_timer(e);
}

void lbox_engine_wake(struct lbox_engine *e, bool on)
{
  e->woken = on;
  signal_host(e);
}

uint64_t lbox_engine_next_id(struct lbox_engine *e)
{
  return ++e->last_id;
}

void lbox_engine_post(struct lbox_engine *e, struct lbox_ready *node)
{
  if (node->queued)
    return;
  node->queued = true;
  node->next = NULL;
  node->prev = e->ready_tail;
  if (e->ready_tail)
    e->ready_tail->next = node;
  else
    e->ready_head = node;
  e->ready_tail = node;
  if (!e->stepping)
    signal_host(e);
}

void lbox_engine_unpost(struct lbox_engine *e, struct lbox_ready *node)
{
  if (!node->queued)
    return;
  node->queued = false;
  *(node->prev ? &node->prev->next : &e->ready_head) = node->next;
  *(node->next ? &node->next->prev : &e->ready_tail) = node->prev;
  node->prev = node->next = NULL;
  if (!e->ready_head && !e->stepping)
    signal_host(e);
}

struct lbox_watch *lbox_engine_watch(struct lbox_engine *e, int fd, uint32_t events, lbox_watch_fn fn,
                                     void *ud, struct lbox_err *err)
{
  struct lbox_watch *w = calloc(1, sizeof *w);
  if (!w) {
    *err = (struct lbox_err){.rc = LBOX_ENOMEM, .text = "not enough memory"};
    return NULL;
  }
  *w = (struct lbox_watch){.engine = e, .fd = fd, .fn = fn, .ud = ud};
  lbox_watch_set(w, events);
  if (events && !w->added) {
    lbox__err_sys(err, "cannot watch the descriptor");
    free(w);
    return NULL;
  }
  return w;
}

void lbox_watch_set(struct lbox_watch *w, uint32_t events)
{
  if (w->closed || (w->added && events == w->events))
    return;
  struct epoll_event event = {.events = events, .data.ptr = w};
  int epoll_fd = w->engine->epoll_fd;
  w->events = events;
  if (events == 0) {
    if (w->added)
      epoll_ctl(epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->added = false;
    return;
  }
  /* A descriptor number may have been closed and used again behind our back: try the other call. */
  int first = w->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  int second = w->added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  w->added = epoll_ctl(epoll_fd, first, w->fd, &event) == 0 ||
             ((errno == ENOENT || errno == EEXIST) && epoll_ctl(epoll_fd, second, w->fd, &event) == 0);
}

void lbox_watch_close(struct lbox_watch *w)
{
  struct lbox_engine *e = w->engine;
  if (w->added && e->epoll_fd >= 0)
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
  w->added = false;
  w->closed = true;
  if (e->stepping) {
    w->next_dead = e->dead;
    e->dead = w;
  } else {
    free(w);
  }
}
