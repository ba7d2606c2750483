#include "server/net/sockets.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* States that have a peer: all but LISTEN (10) and CLOSE (7). */
enum { STATES = 0xfff & ~(1 << 10) & ~(1 << 7), MAX_ROUNDS = 64 };

struct question {
  struct nlmsghdr head;
  struct inet_diag_req_v2 body;
};

static bool ask(int nl, uint16_t type, uint16_t flags, int family, const struct inet_diag_msg *of)
{
  struct question q = {.head = {.nlmsg_len = sizeof q,
                                .nlmsg_type = type,
                                .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)},
                       .body = {.sdiag_family = (uint8_t)family,
                                .sdiag_protocol = IPPROTO_TCP,
                                .idiag_states = STATES}};
  if (of)
    q.body.id = of->id;
  return send(nl, &q, sizeof q, 0) == (ssize_t)sizeof q;
}

static bool is_loopback(const struct inet_diag_msg *m)
{
  static const uint8_t six[16] = {[15] = 1}, mapped[12] = {[10] = 0xff, [11] = 0xff};
  const uint8_t *to = (const uint8_t *)m->id.idiag_dst;
  if (m->idiag_family == AF_INET)
    return to[0] == 127;
  return memcmp(to, six, sizeof six) == 0 ||
         (memcmp(to, mapped, sizeof mapped) == 0 && to[12] == 127);
}

/* Ends the connections in one piece of the list. Returns whether it was the last. */
static bool end_listed(int killer, const char *bytes, size_t size)
{
  for (const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)bytes; NLMSG_OK(h, size);
       h = NLMSG_NEXT(h, size)) {
    if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
      return true;
    const struct inet_diag_msg *m = NLMSG_DATA(h);
    if (h->nlmsg_len >= NLMSG_LENGTH(sizeof *m) && !is_loopback(m))
      ask(killer, SOCK_DESTROY, 0, m->idiag_family, m);
  }
  return false;
}

static int end_family(int list, int killer, int family)
{
  union {
    struct nlmsghdr head;
    char bytes[32 * 1024];
  } answer;
  if (!ask(list, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, NULL))
    return errno;
  for (int i = 0; i < MAX_ROUNDS; i++) {
    ssize_t n = recv(list, &answer, sizeof answer, 0);
    if (n < 0 && errno != EINTR)
      return errno;
    if (n >= 0 && end_listed(killer, answer.bytes, (size_t)n))
      return 0;
  }
  return 0;
}

int lbox_net_end_connections(void)
{
  int list = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  int killer = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  int code = list < 0 || killer < 0 ? errno : 0;
  if (code == 0)
    code = end_family(list, killer, AF_INET);
  if (code == 0)
    code = end_family(list, killer, AF_INET6);
  if (list >= 0)
    close(list);
  if (killer >= 0)
    close(killer);
  return code == EPROTONOSUPPORT || code == ENOENT ? 0 : code;
}
