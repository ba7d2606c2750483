/*
** lbox.server.seccomp: the system calls a box may not make. What user namespaces, capabilities and
** mounts already forbid is forbidden once more here, and so is what reaches across to the host: key
** rings, other namespaces, kernel logs, terminal injection.
*/
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <linux/netlink.h>
#include <lua.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "modules.h"

/* The macros of libseccomp leave a field out. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* Answered with EPERM. */
static const int forbidden[] = {SCMP_SYS(acct),
                                SCMP_SYS(add_key),
                                SCMP_SYS(bpf),
                                SCMP_SYS(chroot),
                                SCMP_SYS(delete_module),
                                SCMP_SYS(finit_module),
                                SCMP_SYS(fsconfig),
                                SCMP_SYS(fsmount),
                                SCMP_SYS(fsopen),
                                SCMP_SYS(fspick),
                                SCMP_SYS(init_module),
                                SCMP_SYS(kexec_file_load),
                                SCMP_SYS(kexec_load),
                                SCMP_SYS(keyctl),
                                SCMP_SYS(mount),
                                SCMP_SYS(mount_setattr),
                                SCMP_SYS(move_mount),
                                SCMP_SYS(name_to_handle_at),
                                SCMP_SYS(open_tree),
                                SCMP_SYS(open_by_handle_at),
                                SCMP_SYS(perf_event_open),
                                SCMP_SYS(pivot_root),
                                SCMP_SYS(fanotify_init),
                                SCMP_SYS(quotactl),
                                SCMP_SYS(reboot),
                                SCMP_SYS(request_key),
                                SCMP_SYS(setns),
                                SCMP_SYS(swapoff),
                                SCMP_SYS(swapon),
                                SCMP_SYS(syslog),
                                SCMP_SYS(umount2),
                                SCMP_SYS(unshare),
                                SCMP_SYS(uselib),
                                SCMP_SYS(userfaultfd),
                                SCMP_SYS(vhangup)};

static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

/* Memory that belongs to no process, and that no limit of a box sees: the kernel bounds how many of
   these there are in a box, so what is left is how large one may be. */
static int bound_sysv(scmp_filter_ctx ctx)
{
  enum { SEGMENT_BYTES = 64 * 1024, SEMAPHORES = 64 };
  int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(shmget), 1,
                            SCMP_A1(SCMP_CMP_GT, SEGMENT_BYTES));
  if (rc == 0) /* an int: the upper half may be anything */
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(semget), 1,
                          SCMP_A1_32(SCMP_CMP_GT, SEMAPHORES));
  return rc;
}

/* Pid 1 has the same user as the box's programs, who could take descriptors, CPU and disk from it.
   Of an argument the kernel takes the lower half for a pid, and so does a masked comparison. */
static int guard_others(scmp_filter_ctx ctx)
{
  const scmp_datum_t low = 0xffffffffu;
  const struct {
    int call;
    struct scmp_arg_cmp when;
  } rules[] = {
      {SCMP_SYS(sched_setaffinity), SCMP_A0(SCMP_CMP_MASKED_EQ, low, 1)},
      {SCMP_SYS(sched_setattr), SCMP_A0(SCMP_CMP_MASKED_EQ, low, 1)},
      {SCMP_SYS(sched_setparam), SCMP_A0(SCMP_CMP_MASKED_EQ, low, 1)},
      {SCMP_SYS(sched_setscheduler), SCMP_A0(SCMP_CMP_MASKED_EQ, low, 1)},
      {SCMP_SYS(ioprio_set), SCMP_A1(SCMP_CMP_MASKED_EQ, low, 1)},
      {SCMP_SYS(setpriority), SCMP_A1(SCMP_CMP_MASKED_EQ, low, 1)},
      /* Everything of a user. */
      {SCMP_SYS(ioprio_set), SCMP_A0(SCMP_CMP_MASKED_EQ, low, 3 /* IOPRIO_WHO_USER */)},
      {SCMP_SYS(setpriority), SCMP_A0(SCMP_CMP_MASKED_EQ, low, PRIO_USER)},
      /* A lease holds up whoever opens the file, which may be one that all boxes share. */
      {SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_MASKED_EQ, low, F_SETLEASE)},
  };
  int rc = 0;
  for (size_t i = 0; i < sizeof rules / sizeof *rules && rc == 0; i++)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), rules[i].call, 1, rules[i].when);
  /* Limits of others at all; one's own pid here is 0. */
  if (rc == 0)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prlimit64), 2,
                          SCMP_A0(SCMP_CMP_NE, 0), SCMP_A2(SCMP_CMP_NE, 0));
  return rc;
}

static int add_rules(scmp_filter_ctx ctx)
{
  int rc = guard_others(ctx);
  if (rc == 0)
    rc = bound_sysv(ctx);
  for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden && rc == 0; i++)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), forbidden[i], 0);
  /* io_uring does work that no filter sees. */
  const int uring[] = {SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter),
                       SCMP_SYS(io_uring_register)};
  for (size_t i = 0; i < sizeof uring / sizeof *uring && rc == 0; i++)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), uring[i], 0);
  /* clone may make no namespace; the arguments of clone3 cannot be seen, so callers fall back. */
  if (rc == 0)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  const scmp_datum_t namespaces[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWNET,   CLONE_NEWPID,
                                     CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};
  for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces && rc == 0; i++)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                          SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]));
  /* Typing into the terminal of whoever started the server. */
  const scmp_datum_t typing[] = {TIOCSTI, TIOCLINUX};
  for (size_t i = 0; i < sizeof typing / sizeof *typing && rc == 0; i++)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                          SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, typing[i]));
  /* Sockets of the known families only: no packet, no vsock, no Bluetooth, no crypto. */
  for (int family = 0; family < AF_MAX && rc == 0; family++) {
    int allowed = 0;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
      allowed = allowed || families[i] == family;
    if (!allowed)
      rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                            SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family));
  }
  if (rc == 0)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                          SCMP_A0(SCMP_CMP_GE, AF_MAX));
  /* Of netlink what lists addresses, and none of its many other doors into the kernel. */
  if (rc == 0)
    rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPROTONOSUPPORT), SCMP_SYS(socket), 2,
                          SCMP_A0(SCMP_CMP_EQ, AF_NETLINK), SCMP_A2(SCMP_CMP_NE, NETLINK_ROUTE));
  return rc;
}

/* The compiled filter as a Lua string, read back from an anonymous file. 0 or a negative errno. */
static int push_filter(lua_State *L, scmp_filter_ctx ctx)
{
  int fd = memfd_create("lbox-seccomp", MFD_CLOEXEC);
  if (fd < 0)
    return -errno;
  int rc = seccomp_export_bpf(ctx, fd);
  off_t size = rc == 0 ? lseek(fd, 0, SEEK_CUR) : 0;
  if (rc == 0 && size > 0) {
    luaL_Buffer b;
    char *bytes = luaL_buffinitsize(L, &b, (size_t)size);
    if (pread(fd, bytes, (size_t)size, 0) == size)
      luaL_pushresultsize(&b, (size_t)size);
    else
      rc = -EIO;
  }
  close(fd);
  return rc;
}

/* filter() -> the compiled filter, as bwrap --seccomp reads it; nil, message on failure */
static int l_filter(lua_State *L)
{
  int rc = -ENOMEM;
  scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
  if (ctx) {
    rc = add_rules(ctx);
    if (rc == 0)
      rc = push_filter(L, ctx);
    seccomp_release(ctx);
  }
  if (rc == 0)
    return 1;
  lua_pushnil(L);
  lua_pushfstring(L, "the system-call filter cannot be made (%d)", -rc);
  return 2;
}

int luaopen_lbox_server_seccomp(lua_State *L)
{
  static const luaL_Reg functions[] = {{"filter", l_filter}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
