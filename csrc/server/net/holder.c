#include "server/net/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/init/userns.h"
#include "server/net/arp.h"
#include "server/net/netlink.h"
#include "server/net/sockets.h"

enum { NETWORK_SIZE = 5, DNS_PORT = 53, TCP = 6, UDP = 17, MTU = 65520 };

/* The box's end of the pair, ours, and what slirp4netns makes. */
static const char *const inner = "eth0", *const outer = "box", *const tap = "tap0";
static const uint8_t box_end[4] = {10, 0, 3, 2}, way_end[4] = {10, 0, 3, 1};
/* Of slirp4netns: its network, and its name server. */
static const uint8_t slirp[4] = {10, 0, 2, 0}, names[4] = {10, 0, 2, 3}, any[4] = {0};

/* What a function failed at, for the answer. */
static const char *failed_at;

static struct {
  int box_ns; /* the box's namespace, */
  int box_nl; /* and a socket there */
  int way_nl; /* in the second namespace; -1: there is none */
} held = {-1, -1, -1};

/* Each step is made only if those before were. */
static bool step(const char *what, int *code, int result)
{
  failed_at = what;
  *code = result;
  return result == 0;
}

static struct lbox_network network(const uint8_t *bytes, uint8_t prefix)
{
  struct lbox_network n = {.prefix = prefix};
  memcpy(&n.address, bytes, sizeof n.address);
  return n;
}

/* --- the namespaces --------------------------------------------------------------------------- */

/* Makes the user and the box's namespace; *user_ns is the caller's. */
static int make_namespaces(int *user_ns)
{
  int code;
  unsigned uid = geteuid(), gid = getegid(); /* 0 inside, which slirp4netns wants */
  if (!step("namespaces", &code, unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? 0 : errno) ||
      !step("ids", &code, lbox_userns_map(0, uid, 0, gid)))
    return code;
  *user_ns = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
  held.box_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  held.box_nl = lbox_netlink_open();
  if (!step("descriptors", &code, *user_ns < 0 || held.box_ns < 0 || held.box_nl < 0 ? EMFILE : 0))
    return code;
  step("loopback", &code, lbox_net_set_up(held.box_nl, "lo"));
  return code;
}

/* --- the way out ------------------------------------------------------------------------------ */

static int refuse(int nl, const uint8_t *networks, size_t count)
{
  int code = 0;
  for (size_t i = 0; i < count && code == 0; i++)
    code =
        lbox_net_prohibit(nl, network(networks + i * NETWORK_SIZE, networks[i * NETWORK_SIZE + 4]));
  return code;
}

/* Of slirp4netns itself the box reaches its name server, and of that nothing but names: it leads to
   the name server of this machine, with every port that has. */
static int add_rules(int nl)
{
  const struct lbox_net_rule rules[] = {
      {.to = network(names, 32), .protocol = UDP, .port = DNS_PORT, .priority = 100},
      {.to = network(names, 32), .protocol = TCP, .port = DNS_PORT, .priority = 101},
      {.to = network(slirp, 24), .from_device = outer, .prohibited = true, .priority = 102},
  };
  int code = 0;
  for (size_t i = 0; i < sizeof rules / sizeof *rules && code == 0; i++)
    code = lbox_net_add_rule(nl, &rules[i]);
  return code;
}

static int part(void)
{
  if (held.way_nl < 0)
    return 0;
  lbox_net_remove_device(held.way_nl, outer);
  close(held.way_nl);
  held.way_nl = -1;
  /* The second namespace ends when nobody is in it. */
  if (setns(held.box_ns, CLONE_NEWNET) != 0)
    return errno;
  return lbox_net_end_connections();
}

/* Makes the second namespace, which this process is in then, and what leads to it. */
static int join(const uint8_t *networks, size_t count)
{
  const uint32_t gateway = network(way_end, 32).address;
  const struct lbox_net_settings settings = {.forward = true, .check_reply_way = true};
  int code, box = held.box_nl;
  if (held.way_nl >= 0)
    return EALREADY;
  if (!step("a namespace", &code, unshare(CLONE_NEWNET) == 0 ? 0 : errno))
    return code;
  int way = held.way_nl = lbox_netlink_open();
  if (!step("a socket", &code, way < 0 ? errno : 0) ||
      !step("a pair of devices", &code, lbox_net_add_pair(way, outer, inner, held.box_ns, MTU)) ||
      !step("refused networks", &code, refuse(way, networks, count)) ||
      !step("rules by port", &code, add_rules(way)) ||
      !step("an address", &code, lbox_net_add_address(way, outer, network(way_end, 30))) ||
      !step("forwarding", &code, lbox_net_configure(way, outer, &settings)) ||
      !step("a device", &code, lbox_net_set_up(way, outer)) ||
      /* In the box, for programs to hear at once what is refused. */
      !step("refused networks", &code, refuse(box, networks, count)) ||
      !step("an address", &code, lbox_net_add_address(box, inner, network(box_end, 30))) ||
      !step("a device", &code, lbox_net_set_up(box, inner)) ||
      !step("a route", &code, lbox_net_add_route(box, network(names, 32), gateway)) ||
      !step("a route", &code, lbox_net_add_route(box, network(any, 0), gateway)))
    return code;
  return 0;
}

static int open_tap(void)
{
  const struct lbox_net_settings settings = {.forward = true, .check_reply_way = true};
  int code;
  if (step("what slirp4netns made", &code, held.way_nl < 0 ? ENODEV : 0) &&
      step("forwarding", &code, lbox_net_configure(held.way_nl, tap, &settings)))
    step("the address of the box", &code, lbox_net_announce(tap, network(box_end, 32).address));
  return code;
}

static int refuse_more(const uint8_t *networks, size_t count)
{
  int code = 0;
  failed_at = "refused networks";
  if (held.way_nl >= 0)
    code = refuse(held.way_nl, networks, count);
  return code == 0 && held.way_nl >= 0 ? refuse(held.box_nl, networks, count) : code;
}

/* --- the socket ------------------------------------------------------------------------------- */

/* The descriptors stay the caller's. */
static bool answer(int32_t code, const int *fds, size_t count)
{
  union {
    struct cmsghdr head;
    char space[CMSG_SPACE(sizeof(int) * 2)];
  } control = {0};
  const char *text = code ? failed_at : "";
  struct iovec iov[] = {{&code, sizeof code}, {(void *)(uintptr_t)text, strlen(text)}};
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
  if (count > 0) {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
  }
  return sendmsg(LBOX_NET_FD, &message, MSG_NOSIGNAL) >= 0;
}

static bool serve_one(const uint8_t *bytes, size_t len)
{
  uint32_t op = 0;
  int32_t code = EINVAL;
  failed_at = "a request";
  if (len >= sizeof op && (len - sizeof op) % NETWORK_SIZE == 0) {
    const uint8_t *networks = bytes + sizeof op;
    size_t count = (len - sizeof op) / NETWORK_SIZE;
    memcpy(&op, bytes, sizeof op);
    if (op == LBOX_NET_JOIN)
      code = join(networks, count);
    else if (op == LBOX_NET_OPEN)
      code = open_tap();
    else if (op == LBOX_NET_REFUSE)
      code = refuse_more(networks, count);
    else if (op == LBOX_NET_PART)
      code = part();
  }
  bool sent = answer(code, NULL, 0);
  if (code != 0 && op == LBOX_NET_JOIN)
    part(); /* nothing is half open */
  return sent;
}

int lbox_net_hold(void)
{
  static uint8_t bytes[LBOX_NET_MAX_MESSAGE];
  int fds[2] = {-1, -1};
  fcntl(LBOX_NET_FD, F_SETFD, FD_CLOEXEC);
  int code = make_namespaces(&fds[0]);
  fds[1] = held.box_ns;
  if (!answer(code, fds, code == 0 ? 2 : 0) || code != 0)
    return 1;
  close(fds[0]);
  for (;;) {
    ssize_t n = recv(LBOX_NET_FD, bytes, sizeof bytes, 0);
    if (n == 0 || (n < 0 && errno != EINTR))
      return 0;
    if (n > 0 && !serve_one(bytes, (size_t)n))
      return 0;
  }
}
