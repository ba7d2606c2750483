/* Assertions for the C tests: a failed one is printed and counted, and the test goes on. */
#ifndef LBOX_CHECK_H
#define LBOX_CHECK_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int check_passed, check_failed;

#define CHECK(condition) check_that(condition, #condition, __FILE__, __LINE__)
#define CHECK_INT(actual, expected)                                                                \
  check_int((long long)(actual), (long long)(expected), #actual, __FILE__, __LINE__)
#define CHECK_TEXT(actual, expected) check_text(actual, expected, #actual, __FILE__, __LINE__)

static inline bool check_that(bool ok, const char *what, const char *file, int line)
{
  if (ok) {
    check_passed++;
  } else {
    check_failed++;
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
  }
  return ok;
}

static inline bool check_int(long long actual, long long expected, const char *what,
                             const char *file, int line)
{
  if (actual != expected)
    fprintf(stderr, "%s:%d: %lld, expected %lld\n", file, line, actual, expected);
  return check_that(actual == expected, what, file, line);
}

static inline bool check_text(const char *actual, const char *expected, const char *what,
                              const char *file, int line)
{
  bool ok = actual && strcmp(actual, expected) == 0;
  if (!ok)
    fprintf(stderr, "%s:%d: '%s', expected '%s'\n", file, line, actual ? actual : "(null)",
            expected);
  return check_that(ok, what, file, line);
}

/* How many descriptors this process has open. */
static inline int check_open_fds(void)
{
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  if (!dir)
    return -1;
  while (readdir(dir))
    n++;
  closedir(dir);
  return n;
}

/* Prints the sum; what main returns. */
static inline int check_summary(void)
{
  printf("%d passed, %d failed\n", check_passed, check_failed);
  return check_failed ? 1 : 0;
}

#endif
