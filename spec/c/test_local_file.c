/* Files that appear whole or not at all, and only where they belong. */
#include "core/local_file.h"

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

static char place[] = "/var/tmp/lbox-local-XXXXXX";
static char path_text[PATH_MAX];

static const char *path_of(const char *name)
{
  snprintf(path_text, sizeof path_text, "%s/%s", place, name);
  return path_text;
}

static void put(const char *name, const char *text)
{
  FILE *file = fopen(path_of(name), "w");
  fputs(text, file);
  fclose(file);
}

static const char *content(const char *name)
{
  static char text[64];
  FILE *file = fopen(path_of(name), "r");
  if (!file)
    return NULL;
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  return text;
}

static int entries(void)
{
  int n = -2; /* . and .. */
  DIR *dir = opendir(place);
  while (readdir(dir))
    n++;
  closedir(dir);
  return n;
}

static int open_place(void)
{
  struct lbox_err err;
  return lbox_local_directory(place, &err);
}

static void test_reading(void)
{
  struct lbox_err err;
  struct stat facts;
  put("text", "four");
  int fd = lbox_local_read(path_of("text"), &facts, &err);
  CHECK(fd >= 0);
  CHECK_INT(facts.st_size, 4);
  close(fd);
  CHECK(lbox_local_read(path_of("nothing"), &facts, &err) < 0);
  CHECK_TEXT(err.text, "No such file or directory");
  CHECK(lbox_local_read(place, &facts, &err) < 0);
  CHECK_TEXT(err.text, "it is a directory");
  CHECK(mkfifo(path_of("fifo"), 0600) == 0);
  CHECK(lbox_local_read(path_of("fifo"), &facts, &err) < 0); /* does not wait for a writer */
  CHECK_TEXT(err.text, "it is no regular file");
  unlink(path_of("fifo"));
  unlink(path_of("text"));
}

static void test_a_file_appears_when_it_is_committed(void)
{
  struct lbox_err err;
  struct lbox_local_file f = {.fd = -1, .directory = -1};
  struct stat facts;
  int dir = open_place();
  put("target", "old");
  umask(027);
  CHECK(lbox_local_create(&f, dir, "target", &err));
  umask(022);
  CHECK(fstat(f.fd, &facts) == 0 && (facts.st_mode & 0777) == 0600);
  close(dir);
  CHECK(lbox_local_write(&f, "new", 3, &err));
  CHECK_TEXT(content("target"), "old");
  CHECK_INT(entries(), 2);
  CHECK(lbox_local_commit(&f, &err));
  CHECK_TEXT(content("target"), "new");
  CHECK(stat(path_of("target"), &facts) == 0 && (facts.st_mode & 0777) == 0640);
  CHECK_INT(entries(), 1);
  lbox_local_discard(&f);
  CHECK_TEXT(content("target"), "new");
  unlink(path_of("target"));
}

static void test_a_discarded_file_leaves_nothing(void)
{
  struct lbox_err err;
  struct lbox_local_file f = {.fd = -1, .directory = -1};
  int dir = open_place();
  CHECK(lbox_local_create(&f, dir, "target", &err));
  CHECK(lbox_local_write(&f, "new", 3, &err));
  lbox_local_discard(&f);
  lbox_local_discard(&f);
  CHECK_INT(entries(), 0);

  CHECK(mkdirat(dir, "target", 0700) == 0); /* in the way */
  CHECK(lbox_local_create(&f, dir, "target", &err));
  CHECK(!lbox_local_commit(&f, &err));
  CHECK_INT(err.code, EISDIR);
  CHECK_INT(entries(), 1);
  rmdir(path_of("target"));
  close(dir);
}

static void test_links_are_not_followed(void)
{
  struct lbox_err err;
  struct lbox_local_file f = {.fd = -1, .directory = -1};
  int dir = open_place();
  put("outside", "mine");
  CHECK(symlink("outside", path_of("link")) == 0);
  CHECK(lbox_local_create(&f, dir, "link", &err) && lbox_local_write(&f, "new", 3, &err));
  CHECK(lbox_local_commit(&f, &err));
  CHECK_TEXT(content("outside"), "mine");
  CHECK_TEXT(content("link"), "new");
  CHECK(symlink("/", path_of("root")) == 0);
  CHECK(lbox_local_enter(dir, "root", &err) < 0);
  CHECK_TEXT(err.text, "it is there and no directory (symbolic links are not followed)");
  CHECK(lbox_local_enter(dir, "outside", &err) < 0);
  CHECK_INT(err.code, ENOTDIR);
  unlink(path_of("outside"));
  unlink(path_of("link"));
  unlink(path_of("root"));
  close(dir);
}

static void test_names_are_one_component(void)
{
  static const char *const bad[] = {"", ".", "..", "/", "a/b", "/a", "a/", "../a", NULL};
  static const char *const good[] = {"a", "...", "..a", ".a", "a\\b", " ", "\n", NULL};
  struct lbox_err err;
  struct lbox_local_file f = {.fd = -1, .directory = -1};
  int dir = open_place();
  for (int i = 0; bad[i]; i++) {
    CHECK(!lbox_local_name(bad[i], strlen(bad[i])));
    CHECK(lbox_local_enter(dir, bad[i], &err) < 0);
    CHECK(!lbox_local_create(&f, dir, bad[i], &err));
  }
  for (int i = 0; good[i]; i++) {
    CHECK(lbox_local_name(good[i], strlen(good[i])));
    int fd = lbox_local_enter(dir, good[i], &err);
    CHECK(fd >= 0);
    close(fd);
    rmdir(path_of(good[i]));
  }
  CHECK(!lbox_local_name("a\0b", 3));
  CHECK(!lbox_local_name("\0", 1));
  char longest[257];
  memset(longest, 'x', 256);
  longest[256] = 0;
  CHECK(!lbox_local_create(&f, dir, longest, &err));
  longest[255] = 0;
  CHECK(lbox_local_create(&f, dir, longest, &err) && lbox_local_commit(&f, &err));
  unlink(path_of(longest));
  CHECK_INT(entries(), 0);
  close(dir);
}

static void test_directories_are_made_with_their_parents(void)
{
  struct lbox_err err;
  int fd = lbox_local_directory(path_of("a//b/c/"), &err);
  CHECK(fd >= 0);
  CHECK(access(path_of("a/b/c"), F_OK) == 0);
  int deeper = lbox_local_enter(fd, "d", &err);
  CHECK(deeper >= 0);
  close(deeper);
  deeper = lbox_local_enter(fd, "d", &err); /* is there */
  CHECK(deeper >= 0);
  close(deeper);
  close(fd);
  put("a/file", "");
  CHECK(lbox_local_directory(path_of("a/file"), &err) < 0);
  CHECK_INT(err.code, ENOTDIR);
  CHECK(lbox_local_directory(path_of("a/file/b"), &err) < 0);
  CHECK_INT(err.code, ENOTDIR);
  CHECK(lbox_local_directory("", &err) < 0);
  unlink(path_of("a/file"));
  rmdir(path_of("a/b/c/d"));
  rmdir(path_of("a/b/c"));
  rmdir(path_of("a/b"));
  rmdir(path_of("a"));
}

int main(void)
{
  int fds = check_open_fds();
  if (!mkdtemp(place))
    return 1;
  test_reading();
  test_a_file_appears_when_it_is_committed();
  test_a_discarded_file_leaves_nothing();
  test_links_are_not_followed();
  test_names_are_one_component();
  test_directories_are_made_with_their_parents();
  CHECK_INT(entries(), 0);
  rmdir(place);
  CHECK_INT(check_open_fds(), fds);
  return check_summary();
}
