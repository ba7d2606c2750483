/* Bodies of fields and files: every split of what is read gives the same bytes, and a file that
   changes never gives wrong ones. */
#include "core/multipart.h"

#include "check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char place[] = "/var/tmp/lbox-multipart-XXXXXX";
static char a_path[64], b_path[64];

static void put(const char *path, const char *text, size_t n)
{
  FILE *file = fopen(path, "w");
  fwrite(text, 1, n, file);
  fclose(file);
}

/* The whole body, read n bytes at a time; -1 when it broke off. */
static long drain(struct lbox_multipart *m, char *out, size_t size, size_t n)
{
  size_t len = 0;
  long got;
  while ((got = lbox_multipart_read(m, out + len, n < size - len ? n : size - len)) > 0)
    len += (size_t)got;
  return got < 0 ? got : (long)len;
}

static const char expected[] =
    "--B\r\nContent-Disposition: form-data; name=\"paths\"\r\n\r\n/tmp/a\r\n"
    "--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"q%22%0D%0A\xc3\xa4\"\r\n"
    "Content-Type: application/octet-stream\r\n\r\nsome\0bytes\r\n"
    "--B\r\nContent-Disposition: form-data; name=\"e%22\"\r\n\r\n\r\n"
    "--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"\"\r\n"
    "Content-Type: text/plain\r\n\r\n\r\n"
    "--B--\r\n";

static void test_every_split(void)
{
  const struct lbox_part parts[] = {
      {.name = "paths", .text = "/tmp/a", .text_len = 6},
      {.name = "files", .path = a_path, .filename = "q\"\r\n\xc3\xa4"},
      {.name = "e\"", .text = ""},
      {.name = "files", .path = b_path, .type = "text/plain"},
  };
  put(a_path, "some\0bytes", 10);
  put(b_path, "", 0);
  int fds = check_open_fds();
  for (size_t n = 1; n <= sizeof expected; n++) {
    char body[sizeof expected + 64];
    struct lbox_multipart *m = lbox_multipart_new(parts, 4, "B");
    CHECK_TEXT(lbox_multipart_type(m), "multipart/form-data; boundary=B");
    CHECK_INT(lbox_multipart_length(m), sizeof expected - 1);
    CHECK_INT(drain(m, body, sizeof body, n), sizeof expected - 1);
    CHECK(memcmp(body, expected, sizeof expected - 1) == 0);
    CHECK(lbox_multipart_error(m) == NULL);
    CHECK_INT(check_open_fds(), fds);
    lbox_multipart_free(m);
  }
}

static void test_no_parts_and_random_boundaries(void)
{
  char body[64];
  struct lbox_multipart *m = lbox_multipart_new(NULL, 0, "B");
  CHECK_INT(drain(m, body, sizeof body, sizeof body), 7);
  CHECK(memcmp(body, "--B--\r\n", 7) == 0);
  lbox_multipart_free(m);
  m = lbox_multipart_new(NULL, 0, NULL);
  struct lbox_multipart *other = lbox_multipart_new(NULL, 0, NULL);
  CHECK(strcmp(lbox_multipart_type(m), lbox_multipart_type(other)) != 0);
  lbox_multipart_free(m);
  lbox_multipart_free(other);
}

static void test_one_file_is_open_at_a_time(void)
{
  const struct lbox_part parts[] = {{.name = "f", .path = a_path}, {.name = "f", .path = a_path}};
  static char large[3000], body[8000];
  put(a_path, large, sizeof large);
  int fds = check_open_fds(), most = 0;
  struct lbox_multipart *m = lbox_multipart_new(parts, 2, "B");
  while (lbox_multipart_read(m, body, 100) > 0)
    most = check_open_fds() > most ? check_open_fds() : most;
  CHECK_INT(most, fds + 1);
  CHECK_INT(check_open_fds(), fds);
  lbox_multipart_free(m);

  m = lbox_multipart_new(parts, 2, "B");
  CHECK(lbox_multipart_read(m, body, 200) == 200);
  lbox_multipart_free(m); /* with a file open */
  CHECK_INT(check_open_fds(), fds);
}

static void fails(const struct lbox_multipart *m, const char *why)
{
  const char *error = lbox_multipart_error(m);
  CHECK(error && strstr(error, why) && strstr(error, a_path));
}

static void test_a_file_that_cannot_be_read(void)
{
  const struct lbox_part part = {.name = "f", .path = a_path};
  char body[300];
  unlink(a_path);
  struct lbox_multipart *m = lbox_multipart_new(&part, 1, "B");
  fails(m, "No such file or directory");
  CHECK_INT(lbox_multipart_read(m, body, sizeof body), -1);
  lbox_multipart_free(m);
  mkdir(a_path, 0700);
  m = lbox_multipart_new(&part, 1, "B");
  fails(m, "it is a directory");
  lbox_multipart_free(m);
  rmdir(a_path);
}

enum change { GROW, SHRINK, REPLACE, REWRITE, REMOVE };

static void apply(enum change change)
{
  struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
  switch (change) {
  case GROW:
    CHECK(truncate(a_path, 200) == 0);
    break;
  case SHRINK:
    CHECK(truncate(a_path, 60) == 0);
    break;
  case REPLACE:
    unlink(a_path);
    put(a_path, "other", 5);
    break;
  case REWRITE: /* as long as it was, at another time */
    CHECK(utimensat(AT_FDCWD, a_path, times, 0) == 0);
    break;
  case REMOVE:
    unlink(a_path);
    break;
  }
}

/* Whenever it changes, the end of the body never comes. */
static void test_a_file_that_changes(void)
{
  const struct lbox_part part = {.name = "f", .path = a_path};
  static const char content[100];
  for (enum change change = GROW; change <= REMOVE; change++) {
    for (size_t before = 0;; before += 7) {
      char body[400];
      put(a_path, content, sizeof content);
      struct lbox_multipart *m = lbox_multipart_new(&part, 1, "B");
      size_t head = (size_t)lbox_multipart_length(m) - sizeof content - strlen("\r\n--B--\r\n");
      bool within = before > head;
      if (before >= head + sizeof content) {
        lbox_multipart_free(m);
        break;
      }
      size_t got = before ? (size_t)lbox_multipart_read(m, body, before) : 0;
      CHECK_INT(got, before);
      apply(change);
      bool replaced = change == REPLACE || change == REMOVE;
      bool broke = drain(m, body, sizeof body, 16) < 0;
      CHECK(broke == !(within && replaced)); /* what is open is still the old file, and whole */
      if (broke)
        fails(m, change == REMOVE ? "No such file" : "changed while it was sent");
      lbox_multipart_free(m);
    }
  }
}

int main(void)
{
  int fds = check_open_fds();
  if (!mkdtemp(place))
    return 1;
  snprintf(a_path, sizeof a_path, "%s/a", place);
  snprintf(b_path, sizeof b_path, "%s/b", place);
  test_every_split();
  test_no_parts_and_random_boundaries();
  test_one_file_is_open_at_a_time();
  test_a_file_that_cannot_be_read();
  test_a_file_that_changes();
  unlink(a_path);
  unlink(b_path);
  rmdir(place);
  CHECK_INT(check_open_fds(), fds);
  return check_summary();
}
