#ifndef LBOX_NET_ARP_H
#define LBOX_NET_ARP_H

#include <stdint.h>

/* Tells whoever is behind a device of this process' network namespace that what is for an IPv4
   address (in network byte order) is to be sent to that device. Returns 0 or an errno value. */
int lbox_net_announce(const char *device, uint32_t address);

#endif
