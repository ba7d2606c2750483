/* Shared by engine.c, multi.c and the files of a request; no one else. */
#ifndef LBOX_ENGINE_INTERNAL_H
#define LBOX_ENGINE_INTERNAL_H

#include <curl/curl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"

struct lbox_http;
struct curl_socket;

struct lbox_engine {
  int refs;
  unsigned forks; /* how often the process had forked when it was made */
  int stepping;
  bool closed, woken;
  bool polled;    /* a host waits for the descriptor: it has to show what is pending */
  bool signalled; /* whether the wake-up descriptor is readable */
  int epoll_fd, wake_fd, timer_fd;
  struct lbox_watch *wake_watch, *timer_watch, *dead;
  int64_t deadline_at, curl_at; /* microseconds, -1 none */
  int64_t armed_at;             /* when the timer goes off: never too late, maybe too early */
  uint64_t last_id;
  struct lbox_ready *ready_head, *ready_tail;

  CURLM *multi;
  bool multi_broken;
  struct curl_socket *sockets;                 /* all that libcurl wants watched */
  struct lbox_http *requests;                  /* all in flight, each with a reference of ours */
  size_t streams;                              /* how many of them are streams */
  struct lbox_http *resume_head, *resume_tail; /* paused ones whose reader has caught up */
};

/* engine.c */
void lbox__err_memory(struct lbox_err *err);
void lbox__err_sys(struct lbox_err *err, const char *what);
/* After curl_at or what is pending was changed. */
void lbox__engine_changed(struct lbox_engine *e);

/* A peer that closed must show as an error of the transfer, not as a signal to the host: SIGPIPE is
   blocked for the thread while libcurl may write, and one that arose meanwhile is taken away. */
struct lbox__pipe_guard {
  sigset_t old;
};
void lbox__pipe_block(struct lbox__pipe_guard *guard);
void lbox__pipe_restore(const struct lbox__pipe_guard *guard);

/* multi.c */
enum lbox_rc lbox__multi_open(struct lbox_engine *e, struct lbox_err *err);
void lbox__multi_close(struct lbox_engine *e);
/* What is due in libcurl: its time, transfers to resume, finished transfers. Part of step. */
void lbox__multi_work(struct lbox_engine *e);

#endif
