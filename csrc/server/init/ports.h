/* Ports of the box's own loopback, as sockets for the server. Those that return int return 0 or an
   errno value; the socket is the caller's. */
#ifndef LBOX_INIT_PORTS_H
#define LBOX_INIT_PORTS_H

#include <stdbool.h>
#include <stdint.h>

/* Begins a connection to one, of ::1 with `six`. It never waits: who listens may be slow to accept.
 */
int lbox_ports_connect(uint32_t port, bool six, int *out);

/* Listens on one of 127.0.0.1. */
int lbox_ports_listen(uint32_t port, int *out);

#endif
