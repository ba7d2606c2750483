/*
** Streams of a command's output: raw bytes, then a tail that says how it ended, one of
**
**     event: exit\n  data: {"exit_code":N,"cpu_ns":N}\n\n
**     event: error\n data: {"error":"..."}\n\n
**
** The tail counts only as the very end of the body, so a program that prints one cannot forge its
** exit; and whatever could still become the tail is held back, so that it never shows as output.
*/
#ifndef LBOX_EXEC_STREAM_H
#define LBOX_EXEC_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"

enum lbox_exec_kind { LBOX_EXEC_NONE, LBOX_EXEC_OUTPUT, LBOX_EXEC_EXIT, LBOX_EXEC_ERROR };

/* The longest data line of a tail; a longer one is output. */
enum { LBOX_EXEC_MAX_DATA = 64 * 1024 };

/* Takes the next piece off the buffer: output bytes, or the JSON of the tail (only when `eof` says
   that the body ended cleanly). The slice is borrowed from the buffer until its next append. */
enum lbox_exec_kind lbox_exec_next(struct lbox_buf *b, bool eof, const char **bytes, size_t *len);

#endif
