/*
** The holder of a box's network. It makes the user and the network namespace that the box runs in,
*and
** is the only process with a capability over them: the box is in a user namespace of its own below.
**
**   the box ─── eth0 ═══ box ─── a second network namespace ─── tap0 ─── slirp4netns
**
** Its namespace has loopback, and only while it is joined to the outside also one end of a pair of
** devices. The other end is in the second namespace, which forwards what is not refused. It is
*there,
** and not in the namespace of the box, that networks are refused: a program that sends binds its
** socket to a device, or sends to many at once, passes by the routes of its own namespace.
**
** The server asks over a SOCK_SEQPACKET socket (LBOX_NET_FD), one thing at a time:
**
**   u32 op, networks     ->  i32 errno (0: done), text: what failed
**
**   JOIN    networks         the second namespace is there, for slirp4netns to make tap0 in: it is
**                            the one of this process
**   OPEN    -                tap0 is there: what comes in by it is passed on
**   REFUSE  networks         more of them
**   PART    -                everything that JOIN made is gone, and connections with it
**
** A network is four bytes of address and one of prefix. The holder speaks first: an answer with the
** user and the network namespace. It ends when the socket closes.
*/
#ifndef LBOX_NET_HOLDER_H
#define LBOX_NET_HOLDER_H

enum { LBOX_NET_FD = 3, LBOX_NET_MAX_MESSAGE = 16 * 1024 };

enum lbox_net_op { LBOX_NET_JOIN = 1, LBOX_NET_OPEN, LBOX_NET_REFUSE, LBOX_NET_PART };

/* Runs until the socket closes; returns the exit status. */
int lbox_net_hold(void);

#endif
