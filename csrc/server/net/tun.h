#ifndef LBOX_NET_TUN_H
#define LBOX_NET_TUN_H

#include <sys/types.h>

/* Runs a program as another user, who may use /dev/net/tun there whatever its mode is on this
   machine. For root, whose machine that is. Returns an errno value when it cannot. */
int lbox_net_run_with_tun(uid_t uid, char **argv);

#endif
