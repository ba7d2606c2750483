#include "core/util.h"

#include <stdlib.h>
#include <unistd.h>

#include "check.h"

static void test_time_goes_forward(void)
{
  int64_t a = lbox_now_us();
  usleep(2000);
  int64_t b = lbox_now_us();
  CHECK(b - a >= 2000);
  CHECK(b - a < 5000000);
}

static void test_random_bytes_differ(void)
{
  unsigned char a[64] = {0}, b[64] = {0};
  CHECK(lbox_random(a, sizeof a));
  CHECK(lbox_random(b, sizeof b));
  CHECK(memcmp(a, b, sizeof a) != 0);
  CHECK(lbox_random(a, 0));
}

static void test_uuid_is_version_4(void)
{
  char a[37], b[37];
  CHECK(lbox_uuid(a));
  CHECK(lbox_uuid(b));
  CHECK_INT(strlen(a), 36);
  CHECK(strcmp(a, b) != 0);
  CHECK(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
  CHECK(a[14] == '4');
  CHECK(strchr("89ab", a[19]) != NULL);
  CHECK_INT(strspn(a, "0123456789abcdef-"), 36);
}

static bool utf8(const char *s)
{
  return lbox_is_utf8(s, strlen(s));
}

static void test_utf8(void)
{
  static const char *const good[] = {"",
                                     "plain",
                                     "\xc3\xa4",
                                     "\xe2\x82\xac",
                                     "\xf0\x9f\x98\x80",
                                     "\xed\x9f\xbf",
                                     "\xee\x80\x80",
                                     "\xf4\x8f\xbf\xbf",
                                     NULL};
  static const char *const bad[] = {"\x80",
                                    "\xc0\x80",
                                    "\xc1\xbf",
                                    "\xc3",
                                    "a\xc3(",
                                    "\xe0\x9f\xbf",
                                    "\xe2\x82",
                                    "\xed\xa0\x80",
                                    "\xf0\x8f\xbf\xbf",
                                    "\xf4\x90\x80\x80",
                                    "\xf5\x80\x80\x80",
                                    "\xff",
                                    NULL};
  for (int i = 0; good[i]; i++)
    CHECK(utf8(good[i]));
  for (int i = 0; bad[i]; i++)
    CHECK(!utf8(bad[i]));
  CHECK(lbox_is_utf8("a\0b", 3));
  CHECK(!lbox_is_utf8("\xe2\x82\xac", 2)); /* looks no further than told */
}

static void test_utf8_repair(void)
{
  char out[16];
  CHECK_INT(lbox_utf8_repair(NULL, "\xc3\xa4", 2), 2);
  CHECK_INT(lbox_utf8_repair(NULL, "a\xff\xe2\x82\xac", 4), 10);
  CHECK_INT(lbox_utf8_repair(out, "a\xff\xc3\xa4", 4), 6);
  CHECK(memcmp(out, "a\xef\xbf\xbd\xc3\xa4", 6) == 0);
}

static void test_json_quote(void)
{
  static const char bytes[] = "a\"\\/\b\t\n\f\r\x01\x7f\0\xc3\xa4";
  static const char quoted[] = "\"a\\\"\\\\\\/\\b\\t\\n\\f\\r\\u0001\\u007f\\u0000\xc3\xa4\"";
  char out[128];
  CHECK_INT(lbox_json_quote(NULL, bytes, sizeof bytes - 1), sizeof quoted - 1);
  CHECK_INT(lbox_json_quote(out, bytes, sizeof bytes - 1), sizeof quoted - 1);
  CHECK(memcmp(out, quoted, sizeof quoted - 1) == 0);
  CHECK_INT(lbox_json_quote(NULL, "", 0), 2);
}

static void test_base64_round_trip(void)
{
  for (size_t n = 0; n < 200; n++) {
    char *bytes = malloc(n + 1), *text = malloc(lbox_base64_size(n) + 1), *back = NULL;
    size_t len, back_len = 0;
    lbox_random(bytes, n);
    len = lbox_base64_encode(text, bytes, n);
    CHECK_INT(len, (n + 2) / 3 * 4);
    back = malloc(len + 1);
    CHECK(lbox_base64_decode(back, &back_len, text, len));
    CHECK_INT(back_len, n);
    CHECK(memcmp(back, bytes, n) == 0);
    free(bytes);
    free(text);
    free(back);
  }
}

static void test_base64_text(void)
{
  char out[16];
  size_t n;
  n = lbox_base64_encode(out, "f\0o", 3);
  CHECK(n == 4 && memcmp(out, "ZgBv", 4) == 0);
  n = lbox_base64_encode(out, "fo", 2);
  CHECK(n == 4 && memcmp(out, "Zm8=", 4) == 0);
  CHECK(lbox_base64_decode(out, &n, "Zm\n9v YmE=", 10));
  CHECK(n == 5 && memcmp(out, "fooba", 5) == 0);
  static const char *const bad[] = {"Zm9", "Zm8", "Z", "Zm9v*", "Zm8=x", "====", NULL};
  for (int i = 0; bad[i]; i++)
    CHECK(!lbox_base64_decode(out, &n, bad[i], strlen(bad[i])));
  CHECK(lbox_base64_decode(out, &n, "", 0));
  CHECK_INT(n, 0);
}

int main(void)
{
  test_time_goes_forward();
  test_random_bytes_differ();
  test_uuid_is_version_4();
  test_utf8();
  test_utf8_repair();
  test_json_quote();
  test_base64_round_trip();
  test_base64_text();
  return check_summary();
}
