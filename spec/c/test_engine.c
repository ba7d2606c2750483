#include "core/engine.h"
#include "core/util.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static struct lbox_engine *make(void)
{
  struct lbox_engine *e = NULL;
  struct lbox_err err;
  CHECK_INT(lbox_engine_new(&e, &err), LBOX_OK);
  return e;
}

static bool readable(struct lbox_engine *e, int wait_ms)
{
  struct pollfd p = {.fd = lbox_engine_pollfd(e), .events = POLLIN};
  return poll(&p, 1, wait_ms) == 1;
}

static void test_ready_queue_is_in_order_and_coalesces(void)
{
  struct lbox_engine *e = make();
  struct lbox_ready a = {.id = lbox_engine_next_id(e)}, b = {.id = lbox_engine_next_id(e)},
                    c = {.id = lbox_engine_next_id(e)};
  CHECK(a.id != b.id && b.id != c.id && a.id != 0);
  CHECK_INT(lbox_engine_ready(e), 0);
  lbox_engine_post(e, &a);
  lbox_engine_post(e, &b);
  lbox_engine_post(e, &a);
  lbox_engine_post(e, &c);
  CHECK(lbox_engine_step(e, 10000)); /* does not wait: something is ready */
  CHECK_INT(lbox_engine_ready(e), a.id);
  lbox_engine_post(e, &a); /* again, behind the others */
  lbox_engine_unpost(e, &b);
  lbox_engine_unpost(e, &b);
  CHECK_INT(lbox_engine_ready(e), c.id);
  CHECK_INT(lbox_engine_ready(e), a.id);
  CHECK_INT(lbox_engine_ready(e), 0);
  CHECK(!lbox_engine_step(e, 0));
  lbox_engine_unref(e);
}

static void test_descriptor_shows_what_is_pending(void)
{
  struct lbox_engine *e = make();
  struct lbox_ready a = {.id = lbox_engine_next_id(e)};
  lbox_engine_wake(e, true); /* before anyone asked for the descriptor */
  CHECK_INT(lbox_engine_timeout(e), 0);
  CHECK(readable(e, 0));
  lbox_engine_step(e, 0);
  CHECK(readable(e, 0)); /* as long as it is on */
  lbox_engine_wake(e, false);
  CHECK(!readable(e, 0));
  CHECK_INT(lbox_engine_timeout(e), -1);

  lbox_engine_post(e, &a);
  CHECK(readable(e, 0));
  CHECK_INT(lbox_engine_timeout(e), 0);
  lbox_engine_step(e, 0);
  CHECK(readable(e, 0));
  CHECK_INT(lbox_engine_ready(e), a.id);
  CHECK(!readable(e, 0));
  lbox_engine_post(e, &a);
  lbox_engine_unpost(e, &a);
  CHECK(!readable(e, 0));
  lbox_engine_unref(e);
}

static void test_deadline_ends_a_step(void)
{
  struct lbox_engine *e = make();
  int64_t start = lbox_now_us();
  lbox_engine_deadline(e, start + 30000);
  int64_t ms = lbox_engine_timeout(e);
  CHECK(ms > 0 && ms <= 30);
  while (lbox_engine_timeout(e) >= 0)
    lbox_engine_step(e, -1);
  int64_t took = lbox_now_us() - start;
  CHECK(took >= 30000 && took < 2000000);

  lbox_engine_deadline(e, 1); /* long past */
  CHECK_INT(lbox_engine_timeout(e), 0);
  lbox_engine_step(e, -1);
  CHECK_INT(lbox_engine_timeout(e), -1);

  lbox_engine_deadline(e, lbox_now_us() + 60000000);
  CHECK(lbox_engine_timeout(e) > 59000);
  lbox_engine_deadline(e, -1);
  CHECK_INT(lbox_engine_timeout(e), -1);
  lbox_engine_unref(e);
}

static void test_deadline_shows_on_the_descriptor(void)
{
  struct lbox_engine *e = make();
  CHECK(!readable(e, 0));
  lbox_engine_deadline(e, lbox_now_us() + 60000000);
  lbox_engine_deadline(e, lbox_now_us() + 20000); /* nearer: set anew */
  CHECK(!readable(e, 0));
  CHECK(readable(e, 5000));
  while (lbox_engine_timeout(e) >= 0)
    lbox_engine_step(e, 0);
  CHECK(!readable(e, 0));
  lbox_engine_deadline(e, lbox_now_us() + 20000); /* then farther: at worst a step for nothing */
  lbox_engine_deadline(e, lbox_now_us() + 60000);
  int64_t start = lbox_now_us();
  while (lbox_engine_timeout(e) >= 0) {
    CHECK(readable(e, 5000));
    lbox_engine_step(e, 0);
  }
  CHECK(lbox_now_us() - start >= 55000);
  lbox_engine_unref(e);
}

struct counter {
  struct lbox_engine *engine;
  struct lbox_watch *self, *other;
  int fd, calls;
  uint32_t events;
  struct lbox_ready ready;
};

static void count(void *ud, uint32_t events)
{
  struct counter *c = ud;
  c->calls++;
  c->events |= events;
  lbox_engine_post(c->engine, &c->ready);
}

static void test_watch_reports_its_descriptor(void)
{
  struct lbox_engine *e = make();
  struct lbox_err err;
  int fds[2];
  CHECK_INT(pipe(fds), 0);
  struct counter c = {.engine = e, .ready.id = lbox_engine_next_id(e)};
  struct lbox_watch *w = lbox_engine_watch(e, fds[0], EPOLLIN, count, &c, &err);
  CHECK(w != NULL);
  CHECK(!lbox_engine_step(e, 0));
  CHECK_INT(c.calls, 0);
  CHECK_INT(write(fds[1], "x", 1), 1);
  CHECK(readable(e, 0));
  CHECK(lbox_engine_step(e, -1));
  CHECK_INT(c.calls, 1);
  CHECK_INT(c.events, EPOLLIN);
  CHECK_INT(lbox_engine_ready(e), c.ready.id);
  lbox_engine_step(e, 0); /* level triggered */
  CHECK_INT(c.calls, 2);
  CHECK(lbox_watch_set(w, 0));
  lbox_engine_step(e, 0);
  CHECK_INT(c.calls, 2);
  CHECK(lbox_watch_set(w, EPOLLIN | EPOLLONESHOT));
  lbox_engine_step(e, 0);
  lbox_engine_step(e, 0);
  CHECK_INT(c.calls, 3);
  CHECK(lbox_watch_set(w, EPOLLIN | EPOLLONESHOT));
  lbox_engine_step(e, 0);
  CHECK_INT(c.calls, 4);
  lbox_engine_unpost(e, &c.ready);
  lbox_watch_close(w);
  lbox_engine_step(e, 0);
  CHECK_INT(c.calls, 4);
  close(fds[0]);
  close(fds[1]);
  lbox_engine_unref(e);
}

static void close_both(void *ud, uint32_t events)
{
  struct counter *c = ud;
  count(c, events);
  lbox_watch_close(c->self);
  lbox_watch_close(c->other);
}

static void test_a_closed_watch_is_not_called_in_the_same_step(void)
{
  struct lbox_engine *e = make();
  struct lbox_err err;
  int fds[2];
  CHECK_INT(pipe(fds), 0);
  int second = dup(fds[0]);
  struct counter a = {.engine = e, .ready.id = 1}, b = {.engine = e, .ready.id = 2};
  a.self = b.other = lbox_engine_watch(e, fds[0], EPOLLIN, close_both, &a, &err);
  b.self = a.other = lbox_engine_watch(e, second, EPOLLIN, close_both, &b, &err);
  CHECK_INT(write(fds[1], "x", 1), 1);
  lbox_engine_step(e, 0);
  CHECK_INT(a.calls + b.calls, 1);
  lbox_engine_step(e, 0);
  CHECK_INT(a.calls + b.calls, 1);
  lbox_engine_unpost(e, &a.ready);
  lbox_engine_unpost(e, &b.ready);
  close(second);
  close(fds[0]);
  close(fds[1]);
  lbox_engine_unref(e);
}

static void test_what_cannot_be_watched_is_an_error(void)
{
  struct lbox_engine *e = make();
  struct lbox_err err = {0};
  char path[] = "/tmp/lbox-test-XXXXXX";
  int fd = mkstemp(path);
  CHECK(lbox_engine_watch(e, fd, EPOLLIN, count, NULL, &err) == NULL);
  CHECK_INT(err.rc, LBOX_ESYS);
  CHECK(err.code != 0 && err.text[0]);
  struct lbox_watch *w = lbox_engine_watch(e, fd, 0, count, NULL, &err);
  CHECK(w && !lbox_watch_set(w, EPOLLIN));
  lbox_watch_close(w);
  close(fd);
  unlink(path);
  lbox_engine_unref(e);
}

static void on_alarm(int number)
{
  (void)number;
}

static void test_a_signal_ends_a_step(void)
{
  struct lbox_engine *e = make();
  struct sigaction action = {.sa_handler = on_alarm};
  struct itimerval in_20_ms = {.it_value.tv_usec = 20000};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &in_20_ms, NULL);
  int64_t start = lbox_now_us();
  CHECK(!lbox_engine_step(e, 60000));
  CHECK(lbox_now_us() - start < 30000000);
  signal(SIGALRM, SIG_DFL);
  lbox_engine_unref(e);
}

static void break_pipe(void *ud, uint32_t events)
{
  struct counter *c = ud;
  (void)events;
  c->calls++;
  CHECK(write(c->fd, "x", 1) < 0);
}

static void test_sigpipe_does_not_reach_the_host(void)
{
  struct lbox_engine *e = make();
  struct lbox_err err;
  int fds[2];
  sigset_t mask;
  CHECK_INT(pipe(fds), 0);
  close(fds[0]);
  struct counter c = {.engine = e, .fd = fds[1]};
  struct lbox_watch *w = lbox_engine_watch(e, fds[1], EPOLLOUT, break_pipe, &c, &err);
  lbox_engine_step(e, 0); /* the default action would end this process */
  CHECK_INT(c.calls, 1);
  sigprocmask(SIG_BLOCK, NULL, &mask);
  CHECK(!sigismember(&mask, SIGPIPE));
  lbox_watch_close(w);
  close(fds[1]);
  lbox_engine_unref(e);
}

static void test_close_is_idempotent_and_final(void)
{
  struct lbox_engine *e = make();
  struct lbox_ready a = {.id = 1};
  lbox_engine_ref(e);
  lbox_engine_close(e);
  lbox_engine_close(e);
  CHECK(lbox_engine_closed(e));
  CHECK(!lbox_engine_step(e, 1000));
  CHECK_INT(lbox_engine_pollfd(e), -1);
  lbox_engine_deadline(e, 5);
  lbox_engine_wake(e, true);
  lbox_engine_post(e, &a);
  lbox_engine_unpost(e, &a);
  lbox_engine_unref(e);
  lbox_engine_unref(e);
  lbox_engine_unref(NULL);
}

/* Parent and child share the epoll set, the timer and the wake-up: the child must keep off. */
static void test_a_forked_child_leaves_its_parent_alone(void)
{
  struct lbox_engine *e = make();
  struct lbox_err err;
  int fds[2], status = -1;
  CHECK_INT(pipe(fds), 0);
  struct counter c = {.engine = e, .ready.id = 7};
  struct lbox_watch *w = lbox_engine_watch(e, fds[0], EPOLLIN, count, &c, &err);
  CHECK(lbox_engine_pollfd(e) >= 0);
  CHECK(!lbox_engine_forked(e));
  pid_t child = fork();
  if (child == 0) {
    bool refused = lbox_engine_forked(e) && !lbox_engine_step(e, 1000) && !lbox_watch_set(w, 0);
    lbox_engine_wake(e, true);
    lbox_engine_deadline(e, 1);
    lbox_watch_close(w);
    lbox_engine_close(e); /* not dropped: what libcurl holds would count as lost */
    _exit(refused ? 0 : 1);
  }
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK_INT(status, 0);
  CHECK(!readable(e, 0));
  CHECK_INT(write(fds[1], "x", 1), 1);
  CHECK(lbox_engine_step(e, 1000));
  CHECK_INT(c.calls, 1);
  lbox_engine_deadline(e, lbox_now_us() + 5000);
  lbox_engine_unpost(e, &c.ready);
  lbox_watch_set(w, 0);
  CHECK(readable(e, 5000));
  lbox_watch_close(w);
  close(fds[0]);
  close(fds[1]);
  lbox_engine_unref(e);
}

int main(void)
{
  int fds = check_open_fds();
  test_ready_queue_is_in_order_and_coalesces();
  test_descriptor_shows_what_is_pending();
  test_deadline_ends_a_step();
  test_deadline_shows_on_the_descriptor();
  test_watch_reports_its_descriptor();
  test_a_closed_watch_is_not_called_in_the_same_step();
  test_what_cannot_be_watched_is_an_error();
  test_a_signal_ends_a_step();
  test_sigpipe_does_not_reach_the_host();
  test_close_is_idempotent_and_final();
  test_a_forked_child_leaves_its_parent_alone();
  CHECK_INT(check_open_fds(), fds);
  return check_summary();
}
