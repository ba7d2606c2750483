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

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* How often this process is a forked child, seen from the one that made its first engine. */
static unsigned forks;

static void on_fork(void)
{
  forks++;
}

static void init_process(void)
{
  curl_global_init(CURL_GLOBAL_DEFAULT);
  pthread_atfork(NULL, NULL, on_fork);
}

void lbox__err_memory(struct lbox_err *err)
{
  *err = (struct lbox_err){.rc = LBOX_ENOMEM, .text = "not enough memory"};
}

void lbox__err_sys(struct lbox_err *err, const char *what)
{
  err->rc = LBOX_ESYS;
  err->code = errno;
  snprintf(err->text, sizeof err->text, "%s: %s", what, strerror(errno));
}

/* --- what the descriptor shows ---------------------------------------------------------------- */

static bool is_pending(const struct lbox_engine *e)
{
  return e->woken || e->ready_head || e->resume_head;
}

/* The nearer of libcurl's time and the host's deadline. */
static int64_t next_time(const struct lbox_engine *e)
{
  int64_t at = e->deadline_at;
  return e->curl_at >= 0 && (at < 0 || e->curl_at < at) ? e->curl_at : at;
}

static void signal_host(struct lbox_engine *e)
{
  bool want = is_pending(e);
  if (want == e->signalled)
    return;
  uint64_t one = 1;
  if (want)
    e->signalled = write(e->wake_fd, &one, sizeof one) == (ssize_t)sizeof one;
  else
    e->signalled = read(e->wake_fd, &one, sizeof one) != (ssize_t)sizeof one;
}

/* A timer that goes off too early costs one empty step; setting it each time would cost more. */
static void arm_timer(struct lbox_engine *e)
{
  int64_t at = next_time(e);
  if (at < 0 || (e->armed_at >= 0 && e->armed_at <= at))
    return;
  struct itimerspec spec = {0};
  spec.it_value.tv_sec = at / 1000000;
  spec.it_value.tv_nsec = (at % 1000000) * 1000;
  if (at == 0)
    spec.it_value.tv_nsec = 1; /* all zero would disarm */
  if (timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0)
    e->armed_at = at;
}

/* Only a host that polls the descriptor needs to see on it what step knows anyway. A forked child
   shares the descriptors with its parent and must leave them alone. */
void lbox__engine_changed(struct lbox_engine *e)
{
  if (!e->polled || e->stepping || e->closed || lbox_engine_forked(e))
    return;
  signal_host(e);
  arm_timer(e);
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
  pthread_once(&once, init_process);
  struct lbox_engine *e = calloc(1, sizeof *e);
  if (!e) {
    lbox__err_memory(err);
    return LBOX_ENOMEM;
  }
  e->refs = 1;
  e->forks = forks;
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
  if (lbox__multi_open(e, err) != LBOX_OK)
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
    lbox__multi_close(e);
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
  return e->forks != forks;
}

int lbox_engine_pollfd(struct lbox_engine *e)
{
  e->polled = true;
  lbox__engine_changed(e);
  return e->epoll_fd;
}

int64_t lbox_engine_timeout(const struct lbox_engine *e)
{
  if (is_pending(e))
    return 0;
  int64_t at = next_time(e);
  if (at < 0)
    return -1;
  int64_t left = at - lbox_now_us();
  return left <= 0 ? 0 : (left + 999) / 1000;
}

/* --- the step --------------------------------------------------------------------------------- */

void lbox__pipe_block(struct lbox__pipe_guard *guard)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, &guard->old);
}

void lbox__pipe_restore(const struct lbox__pipe_guard *guard)
{
  if (sigismember(&guard->old, SIGPIPE))
    return; /* then one may have been pending before, and it is not ours to take */
  const struct timespec none = {0};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  while (sigtimedwait(&set, NULL, &none) < 0 && errno == EINTR)
    ;
  pthread_sigmask(SIG_SETMASK, &guard->old, NULL);
}

static int wait_for_events(struct lbox_engine *e, struct epoll_event *events, int64_t max_wait_ms)
{
  int64_t at = next_time(e);
  if (is_pending(e) || (at >= 0 && at <= lbox_now_us()))
    max_wait_ms = 0;
  else if (max_wait_ms != 0)
    arm_timer(e);
  int wait = max_wait_ms < 0 ? -1 : max_wait_ms > INT32_MAX ? INT32_MAX : (int)max_wait_ms;
  return epoll_wait(e->epoll_fd, events, STEP_BUDGET, wait);
}

bool lbox_engine_step(struct lbox_engine *e, int64_t max_wait_ms)
{
  if (e->closed || lbox_engine_forked(e))
    return false;
  struct epoll_event events[STEP_BUDGET];
  struct lbox__pipe_guard guard;
  int n = wait_for_events(e, events, max_wait_ms);

  lbox__pipe_block(&guard);
  e->stepping++;
  for (int i = 0; i < n; i++) {
    const struct lbox_watch *w = events[i].data.ptr;
    if (!w->closed)
      w->fn(w->ud, events[i].events);
  }
  lbox__multi_work(e);
  e->stepping--;
  bury(e);
  lbox__pipe_restore(&guard);

  if (e->deadline_at >= 0 && lbox_now_us() >= e->deadline_at)
    e->deadline_at = -1;
  lbox__engine_changed(e);
  return e->ready_head != NULL;
}

/* --- the ready queue -------------------------------------------------------------------------- */

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
  lbox__engine_changed(e);
}

void lbox_engine_wake(struct lbox_engine *e, bool on)
{
  e->woken = on;
  lbox__engine_changed(e);
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
  lbox__engine_changed(e);
}

void lbox_engine_unpost(struct lbox_engine *e, struct lbox_ready *node)
{
  if (!node->queued)
    return;
  node->queued = false;
  *(node->prev ? &node->prev->next : &e->ready_head) = node->next;
  *(node->next ? &node->next->prev : &e->ready_tail) = node->prev;
  node->prev = node->next = NULL;
  lbox__engine_changed(e);
}

/* --- watches ---------------------------------------------------------------------------------- */

struct lbox_watch *lbox_engine_watch(struct lbox_engine *e, int fd, uint32_t events,
                                     lbox_watch_fn fn, void *ud, struct lbox_err *err)
{
  struct lbox_watch *w = calloc(1, sizeof *w);
  if (!w) {
    lbox__err_memory(err);
    return NULL;
  }
  *w = (struct lbox_watch){.engine = e, .fd = fd, .fn = fn, .ud = ud};
  if (!lbox_watch_set(w, events)) {
    lbox__err_sys(err, "cannot watch the descriptor");
    free(w);
    return NULL;
  }
  return w;
}

/* libcurl closes descriptors and opens others of the same number without a word in between. */
static bool add_or_modify(struct lbox_watch *w, uint32_t events)
{
  struct epoll_event event = {.events = events, .data.ptr = w};
  int epoll_fd = w->engine->epoll_fd;
  if (w->added && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, w->fd, &event) == 0)
    return true;
  if (w->added && errno != ENOENT)
    return false;
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, w->fd, &event) == 0)
    return true;
  return errno == EEXIST && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, w->fd, &event) == 0;
}

static bool is_usable(const struct lbox_engine *e)
{
  return e->epoll_fd >= 0 && !lbox_engine_forked(e);
}

bool lbox_watch_set(struct lbox_watch *w, uint32_t events)
{
  if (w->added && events == w->events && !(events & EPOLLONESHOT))
    return true;
  if (!is_usable(w->engine)) {
    errno = EBADF;
    return false;
  }
  w->events = events;
  if (events) {
    w->added = add_or_modify(w, events);
    return w->added;
  }
  if (w->added)
    epoll_ctl(w->engine->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
  w->added = false;
  return true;
}

void lbox_watch_close(struct lbox_watch *w)
{
  struct lbox_engine *e = w->engine;
  if (w->added && is_usable(e))
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
  w->closed = true;
  if (e->stepping) {
    w->next_dead = e->dead;
    e->dead = w;
  } else {
    free(w);
  }
}
