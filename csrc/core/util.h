/* Small things every layer needs. No state. */
#ifndef LBOX_UTIL_H
#define LBOX_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Monotonic time in microseconds. */
int64_t lbox_now_us(void);

/* Fills `out` with n random bytes from the kernel. False when it has none to give. */
bool lbox_random(void *out, size_t n);

/* Writes a random (version 4) UUID as text with its NUL. */
bool lbox_uuid(char out[37]);

/* Whether the bytes are UTF-8 as RFC 3629 has it: no surrogates, no overlong forms. */
bool lbox_is_utf8(const char *s, size_t n);

/* Writes the bytes as UTF-8, each that is in no well-formed sequence as U+FFFD. Returns how many
   bytes that are; with `out` NULL nothing is written. */
size_t lbox_utf8_repair(char *out, const char *s, size_t n);

/* Writes the bytes as a JSON string in quotes. Returns how many bytes that are; with `out` NULL
   nothing is written. The bytes are to be UTF-8. */
size_t lbox_json_quote(char *out, const char *s, size_t n);

/* base64 with padding, by nettle. `out` holds lbox_base64_size(n) bytes. Returns bytes written. */
size_t lbox_base64_size(size_t n);
size_t lbox_base64_encode(char *out, const void *bytes, size_t n);

/* Decodes; white space is skipped. `out` holds n bytes. False when the text is not base64. */
bool lbox_base64_decode(void *out, size_t *out_len, const char *text, size_t n);

#endif
