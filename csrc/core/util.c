#include "core/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <nettle/base64.h>

int64_t lbox_now_us(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

bool lbox_random(void *out, size_t n)
{
  char *p = out;
  while (n > 0) {
    ssize_t got = getrandom(p, n, 0);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return false;
    p += got;
    n -= (size_t)got;
  }
  return true;
}

bool lbox_uuid(char out[37])
{
  uint8_t b[16];
  if (!lbox_random(b, sizeof b))
    return false;
  b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
  b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
  snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
           b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
           b[15]);
  return true;
}

/* Length of the well-formed sequence at s (n bytes left), or 0: table 3-7 of the standard. */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
  unsigned char lead = s[0], low = 0x80, high = 0xbf;
  size_t len;
  if (lead < 0x80)
    return 1;
  if (lead >= 0xc2 && lead <= 0xdf)
    len = 2;
  else if (lead >= 0xe0 && lead <= 0xef)
    len = 3;
  else if (lead >= 0xf0 && lead <= 0xf4)
    len = 4;
  else
    return 0;
  if (lead == 0xe0)
    low = 0xa0;
  else if (lead == 0xed)
    high = 0x9f;
  else if (lead == 0xf0)
    low = 0x90;
  else if (lead == 0xf4)
    high = 0x8f;
  if (n < len || s[1] < low || s[1] > high)
    return 0;
  for (size_t i = 2; i < len; i++) {
    if (s[i] < 0x80 || s[i] > 0xbf)
      return 0;
  }
  return len;
}

bool lbox_is_utf8(const char *s, size_t n)
{
  const unsigned char *p = (const unsigned char *)s;
  for (size_t i = 0; i < n;) {
    size_t len = utf8_sequence(p + i, n - i);
    if (len == 0)
      return false;
    i += len;
  }
  return true;
}

size_t lbox_utf8_repair(char *out, const char *s, size_t n)
{
  static const char replacement[3] = {'\xef', '\xbf', '\xbd'}; /* U+FFFD */
  const unsigned char *p = (const unsigned char *)s;
  size_t size = 0;
  for (size_t i = 0; i < n;) {
    size_t len = utf8_sequence(p + i, n - i);
    const char *from = len > 0 ? s + i : replacement;
    size_t put = len > 0 ? len : sizeof replacement;
    if (out)
      memcpy(out + size, from, put);
    size += put;
    i += len > 0 ? len : 1;
  }
  return size;
}

/* The escape of a byte in `out`, which holds 6: its length, 0 when it needs none. */
static size_t json_escape(char *out, unsigned char c)
{
  static const char letters[] = "\b\t\n\f\r\"\\/", escapes[] = "btnfr\"\\/";
  if (c >= 0x20 && c != '"' && c != '\\' && c != '/' && c != 0x7f)
    return 0;
  const char *at = c ? strchr(letters, c) : NULL;
  if (at) {
    out[0] = '\\';
    out[1] = escapes[at - letters];
    return 2;
  }
  static const char digits[] = "0123456789abcdef";
  memcpy(out, "\\u00", 4);
  out[4] = digits[c >> 4];
  out[5] = digits[c & 15];
  return 6;
}

size_t lbox_json_quote(char *out, const char *s, size_t n)
{
  size_t size = 0;
  char escape[6];
  for (size_t i = 0; i <= n + 1; i++) {
    char c = i == 0 || i > n ? '"' : s[i - 1];
    size_t len = i == 0 || i > n ? 0 : json_escape(escape, (unsigned char)c);
    if (out)
      memcpy(out + size, len ? escape : &c, len ? len : 1);
    size += len ? len : 1;
  }
  return size;
}

size_t lbox_base64_size(size_t n)
{
  return BASE64_ENCODE_RAW_LENGTH(n);
}

size_t lbox_base64_encode(char *out, const void *bytes, size_t n)
{
  base64_encode_raw(out, n, bytes);
  return BASE64_ENCODE_RAW_LENGTH(n);
}

bool lbox_base64_decode(void *out, size_t *out_len, const char *text, size_t n)
{
  struct base64_decode_ctx ctx;
  base64_decode_init(&ctx);
  *out_len = n;
  return base64_decode_update(&ctx, out_len, out, n, text) && base64_decode_final(&ctx);
}
