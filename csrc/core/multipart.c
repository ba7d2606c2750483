#include "core/multipart.h"
#include "core/local_file.h"
#include "core/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ERROR = 512 };

/* What is sent of a part: its head and text, then the file's bytes. The last piece is no part. */
struct piece {
  char *text; /* owned */
  size_t len;
  char *path;        /* owned; NULL: no file */
  struct stat facts; /* of the file when it was measured */
};

struct lbox_multipart {
  struct piece *pieces; /* owned */
  size_t count;
  uint64_t length;
  char type[128];
  char error[ERROR];

  size_t at;       /* the piece that is being sent */
  size_t text_off; /* how much of it was */
  uint64_t file_off;
  int fd; /* of its file, -1 while it is not open */
};

static void fail(struct lbox_multipart *m, const char *path, const char *why)
{
  snprintf(m->error, sizeof m->error, "cannot send the file %.300s: %.100s", path, why);
}

/* --- before it is sent -------------------------------------------------------------------------
 */

/* A name in quotes as browsers write it. */
static void put_name(FILE *out, const char *name)
{
  for (; *name; name++) {
    switch (*name) {
    case '"':
      fputs("%22", out);
      break;
    case '\r':
      fputs("%0D", out);
      break;
    case '\n':
      fputs("%0A", out);
      break;
    default:
      fputc(*name, out);
    }
  }
}

static void put_part(FILE *out, const struct lbox_part *part, const char *boundary, bool first)
{
  fprintf(out, "%s--%s\r\nContent-Disposition: form-data; name=\"", first ? "" : "\r\n", boundary);
  put_name(out, part->name);
  fputc('"', out);
  if (!part->text) {
    fputs("; filename=\"", out);
    put_name(out, part->filename ? part->filename : "");
    fprintf(out, "\"\r\nContent-Type: %s", part->type ? part->type : "application/octet-stream");
  }
  fputs("\r\n\r\n", out);
  if (part->text)
    fwrite(part->text, 1, part->text_len, out);
}

/* With `part` NULL the end of the body. False when memory is out. */
static bool make_piece(struct lbox_multipart *m, const struct lbox_part *part, const char *boundary)
{
  struct piece *piece = &m->pieces[m->count];
  FILE *out = open_memstream(&piece->text, &piece->len);
  if (!out)
    return false;
  if (part)
    put_part(out, part, boundary, m->count == 0);
  else
    fprintf(out, "%s--%s--\r\n", m->count == 0 ? "" : "\r\n", boundary);
  m->count++;
  bool ok = !ferror(out);
  ok = fclose(out) == 0 && ok;
  m->length += piece->len;
  if (!ok || !part || part->text)
    return ok;
  piece->path = strdup(part->path);
  return piece->path != NULL;
}

static void measure(struct lbox_multipart *m, struct piece *piece)
{
  struct lbox_err err;
  int fd = lbox_local_read(piece->path, &piece->facts, &err);
  if (fd < 0) {
    fail(m, piece->path, err.text);
    return;
  }
  close(fd);
  m->length += (uint64_t)piece->facts.st_size;
}

static bool random_boundary(char out[48])
{
  char uuid[37];
  bool ok = lbox_uuid(uuid);
  snprintf(out, 48, "lbox-%s", ok ? uuid : "");
  return ok;
}

struct lbox_multipart *lbox_multipart_new(const struct lbox_part *parts, size_t n,
                                          const char *boundary)
{
  struct lbox_multipart *m = calloc(1, sizeof *m);
  char made[48];
  if (!m)
    return NULL;
  m->fd = -1;
  if (!boundary && !random_boundary(made))
    snprintf(m->error, sizeof m->error, "the kernel gave no random bytes");
  boundary = boundary ? boundary : made;
  snprintf(m->type, sizeof m->type, "multipart/form-data; boundary=%s", boundary);
  m->pieces = calloc(n + 1, sizeof *m->pieces);
  bool ok = m->pieces != NULL;
  for (size_t i = 0; ok && i <= n; i++) {
    ok = make_piece(m, i < n ? &parts[i] : NULL, boundary);
    if (ok && m->pieces[i].path && !m->error[0])
      measure(m, &m->pieces[i]);
  }
  if (ok)
    return m;
  lbox_multipart_free(m);
  return NULL;
}

void lbox_multipart_free(struct lbox_multipart *m)
{
  if (!m)
    return;
  lbox_multipart_close(m);
  for (size_t i = 0; i < m->count; i++) {
    free(m->pieces[i].text);
    free(m->pieces[i].path);
  }
  free(m->pieces);
  free(m);
}

const char *lbox_multipart_type(const struct lbox_multipart *m)
{
  return m->type;
}

uint64_t lbox_multipart_length(const struct lbox_multipart *m)
{
  return m->length;
}

const char *lbox_multipart_error(const struct lbox_multipart *m)
{
  return m->error[0] ? m->error : NULL;
}

/* --- while it is sent --------------------------------------------------------------------------
 */

void lbox_multipart_close(struct lbox_multipart *m)
{
  if (m->fd >= 0)
    close(m->fd);
  m->fd = -1;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
         a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool check_same(struct lbox_multipart *m, const struct piece *piece, const struct stat *now)
{
  if (is_same(&piece->facts, now))
    return true;
  fail(m, piece->path, "it changed while it was sent");
  return false;
}

static bool open_file(struct lbox_multipart *m, const struct piece *piece)
{
  struct lbox_err err;
  struct stat now;
  m->fd = lbox_local_read(piece->path, &now, &err);
  if (m->fd >= 0)
    return check_same(m, piece, &now);
  fail(m, piece->path, err.text);
  return false;
}

static bool end_file(struct lbox_multipart *m, const struct piece *piece)
{
  struct stat now;
  if (fstat(m->fd, &now) != 0) {
    fail(m, piece->path, strerror(errno));
    return false;
  }
  return check_same(m, piece, &now);
}

/* The next bytes of the piece's file, read before its last ones are let go. -1: broken. */
static long read_file(struct lbox_multipart *m, const struct piece *piece, char *out, size_t n)
{
  if (m->fd < 0 && !open_file(m, piece))
    return -1;
  uint64_t left = (uint64_t)piece->facts.st_size - m->file_off;
  ssize_t got;
  do
    got = read(m->fd, out, left < n ? (size_t)left : n);
  while (got < 0 && errno == EINTR);
  if (got < 0 || (got == 0 && left > 0)) {
    fail(m, piece->path, got < 0 ? strerror(errno) : "it changed while it was sent");
    return -1;
  }
  m->file_off += (uint64_t)got;
  if ((uint64_t)got == left && !end_file(m, piece))
    return -1;
  return (long)got;
}

static void next_piece(struct lbox_multipart *m)
{
  lbox_multipart_close(m);
  m->at++;
  m->text_off = 0;
  m->file_off = 0;
}

long lbox_multipart_read(struct lbox_multipart *m, char *out, size_t n)
{
  size_t put = 0;
  while (put < n && m->at < m->count && !m->error[0]) {
    const struct piece *piece = &m->pieces[m->at];
    size_t len = piece->len - m->text_off;
    if (len > 0) {
      len = len < n - put ? len : n - put;
      memcpy(out + put, piece->text + m->text_off, len);
      m->text_off += len;
      put += len;
      continue;
    }
    if (piece->path) {
      long got = read_file(m, piece, out + put, n - put);
      put += got > 0 ? (size_t)got : 0;
      if (m->file_off < (uint64_t)piece->facts.st_size)
        continue;
    }
    if (!m->error[0])
      next_piece(m);
  }
  return m->error[0] ? -1 : (long)put;
}
