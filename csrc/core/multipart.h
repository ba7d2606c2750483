/*
** A body of type multipart/form-data: fields of text, and files that are read from disk while they
** are sent, one open at a time and never held in memory. Its length is known before. A file that is
** not the same when it is sent as when it was measured breaks the body off and never makes it
** wrong.
**
** Not libcurl's own forms: they can be rewound, so that a POST is repeated on a new connection; and
** of a file that shrank or grew they send a body that is too short, or wrong (tried).
*/
#ifndef LBOX_MULTIPART_H
#define LBOX_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lbox_part {
  const char *name;
  const char *text; /* of a field; NULL: a file */
  size_t text_len;
  const char *path, *filename, *type; /* of a file; filename and type may be NULL */
};

struct lbox_multipart;

/* Measures the files. The parts are copied. With `boundary` NULL a random one is made. NULL only
   when memory is out; other trouble is told by lbox_multipart_error. */
struct lbox_multipart *lbox_multipart_new(const struct lbox_part *parts, size_t n,
                                          const char *boundary);
void lbox_multipart_free(struct lbox_multipart *m);

/* The value of the header Content-Type, and how long the body is. */
const char *lbox_multipart_type(const struct lbox_multipart *m);
uint64_t lbox_multipart_length(const struct lbox_multipart *m);

/* The next bytes of the body, at most n, in `out`. Returns how many, 0 at the end; -1: it cannot go
   on, as lbox_multipart_error says. */
long lbox_multipart_read(struct lbox_multipart *m, char *out, size_t n);

/* What is wrong with a file, with its path; NULL while nothing is. Borrowed. */
const char *lbox_multipart_error(const struct lbox_multipart *m);

/* Closes the file that is open, if any: nothing more will be read. */
void lbox_multipart_close(struct lbox_multipart *m);

#endif
