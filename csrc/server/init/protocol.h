/*
** What the server and lbox-init say to each other over a SOCK_SEQPACKET pair. All numbers are in
*the
** machine's byte order: both ends run on one machine and come from one build.
**
** Request:  u32 op, u32 id, fields       Answer: u32 id, i32 errno (0: done), fields
** A string is u32 length and the bytes, no NUL inside. A request's descriptors are passed with it.
**
**   op           fields                                  descriptors       answer
**   SPAWN        (in the first descriptor, see below)    request, stdin,   pid of the keeper
**                                                        stdout, stderr,
**                                                        status
**   KILL         u32 keeper                                                 -
**   OPEN         u32 create, string path                                    one descriptor;
*created:
**                                                                           string name of it
**   STAT         u32 follow, string path                                    u8 type, u64 size, i64
*mtime
**   LIST         string path                                                a descriptor, see below
**   MKDIR        u32 parents, string path                                   -
**   RENAME       string from, string to                                     -
**   REMOVE       string path                                                -
**
** OPEN gives a regular file to read; with create, a new file beside `path` to be written and then
** renamed to it (its directories are made). SPAWN's request lies in an anonymous file: string cwd,
** u32 argc, argv…, u32 envc, env…. LIST's answer is such a file too: for each entry u8 type, u64
*size,
** i64 mtime, string name.
**
** The keeper of a command writes one struct lbox_status to the status descriptor when the command's
** main process has ended. A status descriptor that closes without one means that the keeper died.
*/
#ifndef LBOX_INIT_PROTOCOL_H
#define LBOX_INIT_PROTOCOL_H

#include <stdint.h>

enum { LBOX_INIT_FD = 3 }; /* where lbox-init finds its end of the pair */

enum { LBOX_INIT_MAX_MESSAGE = 16 * 1024, LBOX_INIT_MAX_SPAWN = 4 * 1024 * 1024 };

enum lbox_init_op {
  LBOX_INIT_SPAWN = 1,
  LBOX_INIT_KILL,
  LBOX_INIT_OPEN,
  LBOX_INIT_STAT,
  LBOX_INIT_LIST,
  LBOX_INIT_MKDIR,
  LBOX_INIT_RENAME,
  LBOX_INIT_REMOVE
};

enum lbox_status_kind {
  LBOX_STATUS_EXITED = 0,   /* value: exit code */
  LBOX_STATUS_SIGNALED = 1, /* value: signal */
  LBOX_STATUS_FAILED = 2,   /* the program was not started; value: errno */
  LBOX_STATUS_NO_CWD = 3    /* neither was its directory there; value: errno */
};

struct lbox_status {
  uint32_t kind;
  int32_t value;
  uint64_t cpu_ns;
  uint64_t memory_peak_bytes;
};

#endif
