/*
** The few requests of rtnetlink that a box's network is made with. Each goes over a socket of
** lbox_netlink_open, concerns the network namespace that this was opened in, and returns 0 or an
** errno value. IPv4 addresses are in network byte order.
*/
#ifndef LBOX_NET_NETLINK_H
#define LBOX_NET_NETLINK_H

#include <stdbool.h>
#include <stdint.h>

struct lbox_network {
  uint32_t address;
  uint8_t prefix;
};

/* Packets that a rule is for; 0 and NULL: any. */
struct lbox_net_rule {
  const char *from_device;
  struct lbox_network to;
  uint8_t protocol;
  uint16_t port;   /* of the destination */
  bool prohibited; /* else they are routed */
  uint32_t priority;
};

/* Settings of a device, which are off in a new one. */
struct lbox_net_settings {
  bool forward;         /* what comes in by it and is for somebody else */
  bool check_reply_way; /* drops what comes from an address that is not reached by it */
};

/* A socket of the caller's; -1 and errno. */
int lbox_netlink_open(void);

/* Makes a pair of devices, each the other's end: `name` here, `peer` in the namespace peer_netns.
 */
int lbox_net_add_pair(int nl, const char *name, const char *peer, int peer_netns, uint32_t mtu);
int lbox_net_remove_device(int nl, const char *name);
int lbox_net_set_up(int nl, const char *name);
int lbox_net_configure(int nl, const char *name, const struct lbox_net_settings *settings);

int lbox_net_add_address(int nl, const char *name, struct lbox_network address);
/* What goes to `to` is refused. One that is there already is fine. */
int lbox_net_prohibit(int nl, struct lbox_network to);
int lbox_net_add_route(int nl, struct lbox_network to, uint32_t gateway);
int lbox_net_add_rule(int nl, const struct lbox_net_rule *rule);

#endif
