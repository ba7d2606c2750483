/* lbox.server.posix: processes. */
#include "posix.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FDS = 16, SPARE_FD = MAX_FDS };

/* The soft limit of descriptors before it was raised, which a child gets back. */
static rlim_t soft_nofile = RLIM_INFINITY;

/* What a child is to become. Everything is borrowed from the Lua stack of the call. */
struct plan {
  char **argv, **env;
  const char *cwd;
  int fds[MAX_FDS]; /* fds[n] becomes n; -1: closed */
  int count;
  bool has_ids, setsid, dies_with_us;
  pid_t parent;
  uid_t uid;
  gid_t gid;
  struct {
    unsigned resource;
    rlim_t max;
  } limits[4];
  int limit_count;
  int join[2]; /* a user and a network namespace that are entered; -1: none */
};

/* A list of strings at field `name` as a NULL-ended vector in memory of a userdata left on the
 * stack. */
static char **string_list(lua_State *L, const char *name)
{
  lua_getfield(L, 1, name);
  luaL_checktype(L, -1, LUA_TTABLE);
  int list = lua_gettop(L);
  lua_Unsigned n = lua_rawlen(L, list);
  luaL_checkstack(L, (int)n + 8, "too many strings");
  char **vector = lua_newuserdatauv(L, (n + 1) * sizeof *vector, 0);
  for (lua_Unsigned i = 0; i < n; i++) {
    lua_rawgeti(L, list, (lua_Integer)i + 1);
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    if (!text || strlen(text) != len)
      luaL_error(L, "%s[%d] is not a string without NUL", name, (int)i + 1);
    vector[i] = (char *)(uintptr_t)text;
  }
  vector[n] = NULL;
  return vector;
}

/* Enters the namespaces. Whoever enters a user namespace has every capability there, and would keep
   them as its root; this leaves one: to map that root in a user namespace below. */
static int join(const struct plan *p)
{
  const struct __user_cap_header_struct own = {_LINUX_CAPABILITY_VERSION_3, 0};
  const unsigned kept = 1U << CAP_SETFCAP;
  const struct __user_cap_data_struct caps[2] = {{kept, kept, kept}, {0, 0, 0}};
  if (setns(p->join[0], CLONE_NEWUSER) != 0 || setns(p->join[1], CLONE_NEWNET) != 0 ||
      prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED) != 0 ||
      syscall(SYS_capset, &own, caps) != 0)
    return -1;
  return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETFCAP, 0, 0);
}

/* In the vfork child: system calls only, and memory of the parent is only read. Raw calls, since
   the C library's setuid would signal threads of the parent. Returns on failure. */
static void become(const struct plan *p)
{
  sigset_t none;
  sigemptyset(&none);
  /* Move the sources out of the way of the targets, then put each in its place. */
  int moved[MAX_FDS];
  for (int i = 0; i < p->count; i++) {
    moved[i] = p->fds[i] < 0 ? -1 : fcntl(p->fds[i], F_DUPFD_CLOEXEC, SPARE_FD);
    if (p->fds[i] >= 0 && moved[i] < 0)
      return;
  }
  for (int i = 0; i < p->count; i++) {
    if (moved[i] < 0)
      close(i);
    else if (dup2(moved[i], i) < 0)
      return;
  }
  if (syscall(SYS_close_range, (unsigned)p->count, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */) != 0 &&
      errno != ENOSYS && errno != EINVAL)
    return;
  if (p->setsid)
    setsid();
  struct rlimit nofile;
  if (getrlimit(RLIMIT_NOFILE, &nofile) == 0 && soft_nofile < nofile.rlim_cur) {
    nofile.rlim_cur = soft_nofile;
    setrlimit(RLIMIT_NOFILE, &nofile);
  }
  for (int i = 0; i < p->limit_count; i++) {
    const struct rlimit limit = {p->limits[i].max, p->limits[i].max};
    if (setrlimit(p->limits[i].resource, &limit) != 0)
      return;
  }
  if (p->has_ids) {
    if (syscall(SYS_setgroups, 0, NULL) != 0 ||
        syscall(SYS_setresgid, p->gid, p->gid, p->gid) != 0 ||
        syscall(SYS_setresuid, p->uid, p->uid, p->uid) != 0)
      return;
  }
  if (p->join[0] >= 0 && join(p) != 0)
    return;
  if (p->cwd && chdir(p->cwd) != 0)
    return;
  /* After the change of user, which takes it away; who died before it is not noticed by it. */
  if (p->dies_with_us && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != p->parent))
    return;
  const struct sigaction standard = {.sa_handler = SIG_DFL};
  for (int s = 1; s < 65; s++)
    sigaction(s, &standard, NULL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execve(p->argv[0], p->argv, p->env);
}

static void take_fds(lua_State *L, struct plan *p)
{
  p->count = 3;
  for (int i = 0; i < MAX_FDS; i++)
    p->fds[i] = i < 3 ? i : -1;
  if (lua_getfield(L, 1, "fds") != LUA_TTABLE)
    return;
  int table = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    lua_Integer target = luaL_checkinteger(L, -2);
    luaL_argcheck(L, target >= 0 && target < MAX_FDS, 1, "fds: targets are 0 to 15");
    p->fds[target] = lbox__check_fd(L, -1);
    p->count = target >= p->count ? (int)target + 1 : p->count;
  }
}

static void take_limits(lua_State *L, struct plan *p)
{
  static const struct {
    const char *name;
    unsigned resource;
  } known[] = {{"core", RLIMIT_CORE}, {"nofile", RLIMIT_NOFILE}, {"nproc", RLIMIT_NPROC}};
  if (lua_getfield(L, 1, "limits") != LUA_TTABLE)
    return;
  int table = lua_gettop(L);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (lua_getfield(L, table, known[i].name) != LUA_TNIL) {
      p->limits[p->limit_count].resource = known[i].resource;
      p->limits[p->limit_count++].max = (rlim_t)luaL_checkinteger(L, -1);
    }
    lua_pop(L, 1);
  }
}

static void take_join(lua_State *L, struct plan *p)
{
  p->join[0] = p->join[1] = -1;
  if (lua_getfield(L, 1, "join") != LUA_TTABLE)
    return;
  int table = lua_gettop(L);
  for (int i = 0; i < 2; i++) {
    lua_rawgeti(L, table, i + 1);
    p->join[i] = lbox__check_fd(L, -1);
  }
}

/* spawn{ argv = {absolute program, …}, env = {"K=V", …}, cwd, fds = { [0] = fd, … }, uid, gid,
   setsid, dies_with_us, limits = { core, nofile, nproc }, join = {user, network namespace} } ->
   pid, pidfd. The child has the descriptors of `fds` and no other; 0 to 2 are ours unless `fds` has
   them. It has no power over what it joins. One that dies with us is killed when this process ends,
   however that does. */
int lbox__l_spawn(lua_State *L)
{
  struct plan p = {0};
  luaL_checktype(L, 1, LUA_TTABLE);
  p.argv = string_list(L, "argv");
  luaL_argcheck(L, p.argv[0], 1, "argv is empty");
  p.env = string_list(L, "env");
  lua_getfield(L, 1, "cwd");
  p.cwd = luaL_optstring(L, -1, NULL);
  lua_getfield(L, 1, "setsid");
  p.setsid = lua_toboolean(L, -1);
  lua_getfield(L, 1, "dies_with_us");
  p.dies_with_us = lua_toboolean(L, -1);
  p.parent = getpid();
  if (lua_getfield(L, 1, "uid") != LUA_TNIL) {
    p.has_ids = true;
    p.uid = (uid_t)luaL_checkinteger(L, -1);
    lua_getfield(L, 1, "gid");
    p.gid = (gid_t)luaL_checkinteger(L, -1);
  }
  take_fds(L, &p);
  take_limits(L, &p);
  take_join(L, &p);

  /* Signals stay away from the child until its handlers are reset: it runs on our memory. */
  sigset_t all, old;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &old);
  volatile int failed = 0;
  pid_t pid = vfork();
  if (pid == 0) {
    become(&p);
    failed = errno;
    _exit(127);
  }
  int code = errno;
  sigprocmask(SIG_SETMASK, &old, NULL);
  if (pid < 0) {
    errno = code;
    return lbox__fail(L);
  }
  if (failed) {
    waitpid(pid, NULL, 0);
    errno = failed;
    return lbox__fail(L);
  }
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (pidfd < 0) {
    code = errno;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    errno = code;
    return lbox__fail(L);
  }
  lua_pushinteger(L, pid);
  lua_pushinteger(L, pidfd);
  return 2;
}

/* raise_nofile_limit() -> true: this process may have as many descriptors as its hard limit allows
   (and lbox__check_fd takes). What it spawns gets the limit that there was before. */
int lbox__l_raise_nofile_limit(lua_State *L)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return lbox__fail(L);
  rlim_t before = limit.rlim_cur;
  rlim_t most = limit.rlim_max < LBOX__MAX_FD ? limit.rlim_max : LBOX__MAX_FD;
  if (before < most) {
    limit.rlim_cur = most;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
      return lbox__fail(L);
    soft_nofile = before;
  }
  return lbox__done(L, 0);
}

/* waitid(pidfd) -> { exit_code | signal, cpu_ns, memory_peak_bytes }; nil when it still runs */
int lbox__l_waitid(lua_State *L)
{
  siginfo_t info = {0};
  struct rusage usage = {0};
  int pidfd = lbox__check_fd(L, 1);
  if (syscall(SYS_waitid, 3 /* P_PIDFD */, pidfd, &info, WEXITED | WNOHANG, &usage) != 0)
    return lbox__fail(L);
  if (info.si_pid == 0) {
    lua_pushnil(L);
    return 1;
  }
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, info.si_status);
  lua_setfield(L, -2, info.si_code == CLD_EXITED ? "exit_code" : "signal");
  int64_t us = ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
               usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  lua_pushinteger(L, (lua_Integer)us * 1000);
  lua_setfield(L, -2, "cpu_ns");
  lua_pushinteger(L, (lua_Integer)usage.ru_maxrss * 1024);
  lua_setfield(L, -2, "memory_peak_bytes");
  return 1;
}

/* kill(pid, "KILL" | "TERM" | "INT") */
int lbox__l_kill(lua_State *L)
{
  static const char *const names[] = {"KILL", "TERM", "INT", NULL};
  static const int numbers[] = {SIGKILL, SIGTERM, SIGINT};
  lua_Integer pid = luaL_checkinteger(L, 1);
  luaL_argcheck(L, pid > 1, 1, "not a process of ours");
  if (kill((pid_t)pid, numbers[luaL_checkoption(L, 2, "TERM", names)]) != 0)
    return lbox__fail(L);
  lua_pushboolean(L, 1);
  return 1;
}

/* pidfd_open(pid) -> fd that is readable once that process, which need not be a child, has ended */
int lbox__l_pidfd_open(lua_State *L)
{
  lua_Integer pid = luaL_checkinteger(L, 1);
  luaL_argcheck(L, pid > 1 && pid <= INT32_MAX, 1, "not a process id");
  return lbox__push_fd(L, (int)syscall(SYS_pidfd_open, (pid_t)pid, 0));
}

/* pidfd_kill(fd): SIGKILL to that very process */
int lbox__l_pidfd_kill(lua_State *L)
{
  int pidfd = lbox__check_fd(L, 1);
  return lbox__done(L, (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0));
}
