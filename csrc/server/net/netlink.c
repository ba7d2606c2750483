#include "server/net/netlink.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_REQUEST = 512 };

/* A request that is being written; what does not fit is noted and never sent. */
struct request {
  union {
    struct nlmsghdr head;
    char bytes[MAX_REQUEST];
  } u;
  bool full;
};

int lbox_netlink_open(void)
{
  return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

/* --- requests --------------------------------------------------------------------------------- */

static void *reserve(struct request *r, size_t size)
{
  size_t at = NLMSG_ALIGN(r->u.head.nlmsg_len);
  if (at + size > MAX_REQUEST) {
    r->full = true;
    return NULL;
  }
  r->u.head.nlmsg_len = (uint32_t)(at + size);
  return r->u.bytes + at;
}

static void begin(struct request *r, uint16_t type, uint16_t flags, const void *body, size_t size)
{
  memset(r, 0, sizeof *r);
  r->u.head.nlmsg_len = NLMSG_HDRLEN;
  r->u.head.nlmsg_type = type;
  r->u.head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
  memcpy(reserve(r, size), body, size);
}

static void put(struct request *r, uint16_t type, const void *value, size_t size)
{
  struct rtattr *attribute = reserve(r, RTA_LENGTH(size));
  if (!attribute)
    return;
  attribute->rta_type = type;
  attribute->rta_len = (uint16_t)RTA_LENGTH(size);
  if (size)
    memcpy(RTA_DATA(attribute), value, size);
}

static void put_text(struct request *r, uint16_t type, const char *text)
{
  put(r, type, text, strlen(text) + 1);
}

/* An attribute made of those that are put until `close_nested`, which takes what this returns. */
static size_t open_nested(struct request *r, uint16_t type)
{
  size_t at = NLMSG_ALIGN(r->u.head.nlmsg_len);
  put(r, type, NULL, 0);
  return at;
}

static void close_nested(struct request *r, size_t at)
{
  uint16_t size = (uint16_t)(NLMSG_ALIGN(r->u.head.nlmsg_len) - at);
  if (!r->full)
    memcpy(r->u.bytes + at + offsetof(struct rtattr, rta_len), &size, sizeof size);
}

static int perform(int nl, struct request *r)
{
  union {
    struct nlmsghdr head;
    char bytes[MAX_REQUEST + 512]; /* an answer has the request in it */
  } answer;
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  ssize_t n;
  if (r->full)
    return EMSGSIZE;
  do
    n = sendto(nl, &r->u, r->u.head.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return errno;
  do
    n = recv(nl, &answer, sizeof answer, 0);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return errno;
  if ((size_t)n < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || answer.head.nlmsg_type != NLMSG_ERROR)
    return EPROTO;
  return -((struct nlmsgerr *)NLMSG_DATA(&answer.head))->error;
}

/* --- devices ---------------------------------------------------------------------------------- */

int lbox_net_add_pair(int nl, const char *name, const char *peer, int peer_netns, uint32_t mtu)
{
  struct request r;
  const struct ifinfomsg any = {.ifi_family = AF_UNSPEC};
  begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &any, sizeof any);
  put_text(&r, IFLA_IFNAME, name);
  put(&r, IFLA_MTU, &mtu, sizeof mtu);
  size_t info = open_nested(&r, IFLA_LINKINFO);
  put_text(&r, IFLA_INFO_KIND, "veth");
  size_t data = open_nested(&r, IFLA_INFO_DATA);
  size_t other = open_nested(&r, VETH_INFO_PEER);
  void *place = reserve(&r, sizeof any);
  if (place)
    memcpy(place, &any, sizeof any);
  put_text(&r, IFLA_IFNAME, peer);
  put(&r, IFLA_MTU, &mtu, sizeof mtu);
  put(&r, IFLA_NET_NS_FD, &(uint32_t){(uint32_t)peer_netns}, sizeof(uint32_t));
  close_nested(&r, other);
  close_nested(&r, data);
  close_nested(&r, info);
  return perform(nl, &r);
}

static void begin_link(struct request *r, uint16_t type, const char *name, unsigned flags)
{
  const struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_flags = flags, .ifi_change = flags};
  begin(r, type, 0, &link, sizeof link);
  put_text(r, IFLA_IFNAME, name);
}

int lbox_net_remove_device(int nl, const char *name)
{
  struct request r;
  begin_link(&r, RTM_DELLINK, name, 0);
  return perform(nl, &r);
}

int lbox_net_set_up(int nl, const char *name)
{
  struct request r;
  begin_link(&r, RTM_NEWLINK, name, IFF_UP);
  return perform(nl, &r);
}

int lbox_net_configure(int nl, const char *name, const struct lbox_net_settings *settings)
{
  struct request r;
  const struct {
    uint16_t type;
    bool on;
  } all[] = {{IPV4_DEVCONF_FORWARDING, settings->forward},
             {IPV4_DEVCONF_RP_FILTER, settings->check_reply_way}};
  begin_link(&r, RTM_NEWLINK, name, 0);
  size_t spec = open_nested(&r, IFLA_AF_SPEC);
  size_t inet = open_nested(&r, AF_INET);
  size_t conf = open_nested(&r, IFLA_INET_CONF);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    put(&r, all[i].type, &(uint32_t){all[i].on}, sizeof(uint32_t));
  close_nested(&r, conf);
  close_nested(&r, inet);
  close_nested(&r, spec);
  return perform(nl, &r);
}

/* The index of a device, 0 and errno when there is none. The namespace of the socket need not be
   that of this process. */
static int find_device(int nl, const char *name)
{
  struct request r;
  union {
    struct nlmsghdr head;
    char bytes[8192];
  } answer;
  const struct ifinfomsg any = {.ifi_family = AF_UNSPEC};
  begin(&r, RTM_GETLINK, 0, &any, sizeof any);
  r.u.head.nlmsg_flags = NLM_F_REQUEST;
  put_text(&r, IFLA_IFNAME, name);
  if (send(nl, &r.u, r.u.head.nlmsg_len, 0) < 0 || recv(nl, &answer, sizeof answer, 0) < 0)
    return 0;
  if (answer.head.nlmsg_type != RTM_NEWLINK) {
    errno = ENODEV;
    return 0;
  }
  return ((struct ifinfomsg *)NLMSG_DATA(&answer.head))->ifi_index;
}

int lbox_net_add_address(int nl, const char *name, struct lbox_network address)
{
  struct request r;
  int index = find_device(nl, name);
  if (index == 0)
    return errno;
  const struct ifaddrmsg body = {
      .ifa_family = AF_INET, .ifa_prefixlen = address.prefix, .ifa_index = (unsigned)index};
  begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  put(&r, IFA_LOCAL, &address.address, sizeof address.address);
  put(&r, IFA_ADDRESS, &address.address, sizeof address.address);
  return perform(nl, &r);
}

/* --- ways ------------------------------------------------------------------------------------- */

static void begin_route(struct request *r, struct lbox_network to, uint8_t type)
{
  const struct rtmsg body = {.rtm_family = AF_INET,
                             .rtm_dst_len = to.prefix,
                             .rtm_table = RT_TABLE_MAIN,
                             .rtm_protocol = RTPROT_STATIC,
                             .rtm_scope = RT_SCOPE_UNIVERSE,
                             .rtm_type = type};
  begin(r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  if (to.prefix > 0)
    put(r, RTA_DST, &to.address, sizeof to.address);
}

int lbox_net_prohibit(int nl, struct lbox_network to)
{
  struct request r;
  begin_route(&r, to, RTN_PROHIBIT);
  int code = perform(nl, &r);
  return code == EEXIST ? 0 : code;
}

int lbox_net_add_route(int nl, struct lbox_network to, uint32_t gateway)
{
  struct request r;
  begin_route(&r, to, RTN_UNICAST);
  put(&r, RTA_GATEWAY, &gateway, sizeof gateway);
  return perform(nl, &r);
}

int lbox_net_add_rule(int nl, const struct lbox_net_rule *rule)
{
  struct request r;
  const struct fib_rule_hdr body = {.family = AF_INET,
                                    .dst_len = rule->to.prefix,
                                    .table = rule->prohibited ? RT_TABLE_UNSPEC : RT_TABLE_MAIN,
                                    .action = rule->prohibited ? FR_ACT_PROHIBIT : FR_ACT_TO_TBL};
  begin(&r, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  put(&r, FRA_PRIORITY, &rule->priority, sizeof rule->priority);
  put(&r, FRA_DST, &rule->to.address, sizeof rule->to.address);
  if (rule->from_device)
    put_text(&r, FRA_IIFNAME, rule->from_device);
  if (rule->protocol)
    put(&r, FRA_IP_PROTO, &rule->protocol, sizeof rule->protocol);
  if (rule->port) {
    const struct fib_rule_port_range range = {rule->port, rule->port};
    put(&r, FRA_DPORT_RANGE, &range, sizeof range);
  }
  return perform(nl, &r);
}
