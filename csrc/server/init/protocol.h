/*
** What the server and lbox-init say to each other over a SOCK_SEQPACKET pair. All numbers are in
** the machine's byte order: both ends run on one machine and come from one build.
**
** Request:  u32 op, u32 id, fields       Answer: u32 id, i32 errno (0: done), fields
** A string is u32 length and the bytes, no NUL inside; a path is absolute. Descriptors are passed
** with the message. lbox-init speaks first: an answer with id 0 says that the box is up.
**
**   op       fields                             descriptors        answer
**   SPAWN    -                                  five               u32 keeper
**   KILL     u32 keeper, u32 signal, u32 force                     -
**   DISCARD  -                                  one or two pipes   -
**   OPEN     string path                                           a regular file to read
**   CREATE   string path                                           u32 file, a new file to write
**   COMMIT   u32 file                                              -
**   ABANDON  u32 file                                              -
**   STAT     u32 follow, string path                               u8 type, u64 size, i64 mtime,
**                                                                  u64 inode, u32 mtime_ns
**   LIST     string path                                           a directory's entries
**   MKDIR    u32 parents, string path                              -
**   RENAME   string from, string to                                -
**   REMOVE   string path                                           -
**   CONNECT  u32 port, u32 six                                     a TCP socket
**   FREEZE   -                                                     -
**   THAW     -                                                     -
**   LISTEN   u32 port                                              a listening TCP socket
**   TERMINAL u32 rows, u32 columns                                 a pseudo-terminal's master
**
** SPAWN: the descriptors are the command, its stdin, stdout and stderr, and one for its status.
** What to run lies in an anonymous file: string cwd, u32 argc, argv…, u32 envc, env….
** When its stdin is a terminal, that is the one that controls the command.
** DISCARD: what a command left in the background may go on writing to them, and nobody reads it.
** CREATE makes a file without a visible name of its own beside `path`; COMMIT puts it in the place
** of `path`, ABANDON removes it. What is neither when lbox-init ends is removed.
** LIST: an anonymous file, for each entry u8 type, u64 size, i64 mtime, string name. With more than
** LBOX_INIT_MAX_ENTRIES of them it fails with EFBIG.
** CONNECT: to 127.0.0.1, or with `six` to ::1, in the box. The socket is non-blocking and may still
** be connecting.
** FREEZE: every process of the box but lbox-init is stopped until THAW. What is killed meanwhile
** ends all the same.
** LISTEN: on 127.0.0.1 in the box. Who has the socket accepts, wherever he is.
** Types: 0 file, 1 directory, 2 symlink, 3 other.
**
** The keeper of a command writes struct lbox_status to the status descriptor: first STARTED, when
** the command runs, then how it ended; or only why it could not be started. A status descriptor
** that closes before that means that the keeper was killed. KILL sends the signal to every
** descendant of the command; SIGKILL goes on until none is left. `force` is for a keeper that does
** not react: the keeper is killed, and with it everything of the box that belongs to no other
** keeper.
*/
#ifndef LBOX_INIT_PROTOCOL_H
#define LBOX_INIT_PROTOCOL_H

#include <stdint.h>

enum { LBOX_INIT_FD = 3 }; /* where lbox-init finds its end of the pair */

enum {
  LBOX_INIT_MAX_MESSAGE = 16 * 1024,
  LBOX_INIT_MAX_COMMAND = 4 * 1024 * 1024,
  LBOX_INIT_MAX_ENTRIES = 50000
};

enum lbox_init_op {
  LBOX_INIT_SPAWN = 1,
  LBOX_INIT_KILL,
  LBOX_INIT_DISCARD,
  LBOX_INIT_OPEN,
  LBOX_INIT_CREATE,
  LBOX_INIT_COMMIT,
  LBOX_INIT_ABANDON,
  LBOX_INIT_STAT,
  LBOX_INIT_LIST,
  LBOX_INIT_MKDIR,
  LBOX_INIT_RENAME,
  LBOX_INIT_REMOVE,
  LBOX_INIT_CONNECT,
  LBOX_INIT_FREEZE,
  LBOX_INIT_THAW,
  LBOX_INIT_LISTEN,
  LBOX_INIT_TERMINAL
};

enum lbox_status_kind {
  LBOX_STATUS_STARTED = 0,  /* value: pid of the main process, in the box */
  LBOX_STATUS_EXITED = 1,   /* value: exit code */
  LBOX_STATUS_SIGNALED = 2, /* value: signal */
  LBOX_STATUS_FAILED = 3,   /* the program could not be started; value: errno */
  LBOX_STATUS_NO_CWD = 4    /* its directory could not be entered; value: errno */
};

struct lbox_status {
  uint32_t kind;
  int32_t value;
  uint64_t cpu_ns;            /* of all processes of the command that were waited for */
  uint64_t memory_peak_bytes; /* of the largest of them */
};

#endif
