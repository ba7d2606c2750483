#ifndef LBOX_NET_SOCKETS_H
#define LBOX_NET_SOCKETS_H

/* Ends every TCP connection of this process' network namespace but those of loopback: whoever waits
   for one hears of it. A kernel that cannot do that leaves them to their time limits. Returns 0 or
   an errno value. */
int lbox_net_end_connections(void);

#endif
