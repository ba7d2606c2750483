/* Shared by engine.c and http.c, no one else. */
#ifndef LBOX_ENGINE_INTERNAL_H
#define LBOX_ENGINE_INTERNAL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/engine.h"

struct lbox_http;

struct lbox_engine {
  int refs;
  pid_t pid; /* the process it may be used in */
  int stepping;
  bool closed, woken;
  bool signalled; /* whether the wake-up descriptor is readable */
  int epoll_fd, wake_fd, timer_fd;
  struct lbox_watch *wake_watch, *timer_watch, *dead;
  int64_t deadline_at, curl_at; /* microseconds, -1 none */
  int64_t armed_at;             /* what the timer is set to */
  uint64_t last_id;
  struct lbox_ready *ready_head, *ready_tail;

  CURLM *multi;
  struct lbox_http *requests;    /* all in flight, each with a reference of ours */
  struct lbox_http *resume_head; /* paused transfers whose reader has caught up */
};

void lbox__err_sys(struct lbox_err *err, const char *what);
void lbox__engine_curl_timer(struct lbox_engine *e, int64_t at_us);
void lbox__engine_signal(struct lbox_engine *e);

/* http.c */
enum lbox_rc lbox__http_open(struct lbox_engine *e, struct lbox_err *err);
void lbox__http_close(struct lbox_engine *e);
void lbox__http_timeout(struct lbox_engine *e);
void lbox__http_work(struct lbox_engine *e);

#endif
