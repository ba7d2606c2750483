/* Shared by the files of lbox.server.posix. */
#ifndef LBOX_SERVER_POSIX_H
#define LBOX_SERVER_POSIX_H

#include <lauxlib.h>
#include <lua.h>

enum { LBOX__MAX_FD = 1 << 20 }; /* descriptors are below that */

/* Returns nil, message, name for errno. */
int lbox__fail(lua_State *L);
int lbox__check_fd(lua_State *L, int index);

/* Returns true, or what lbox__fail returns when `result` is not 0. */
int lbox__done(lua_State *L, int result);
int lbox__push_fd(lua_State *L, int fd);

int lbox__l_address(lua_State *L);
int lbox__l_address_text(lua_State *L);
int lbox__l_own_addresses(lua_State *L);
int lbox__l_watch_addresses(lua_State *L);

int lbox__l_accept(lua_State *L);
int lbox__l_connect(lua_State *L);
int lbox__l_listen(lua_State *L);
int lbox__l_recv(lua_State *L);
int lbox__l_reset(lua_State *L);
int lbox__l_send(lua_State *L);
int lbox__l_send_datagram(lua_State *L);
int lbox__l_shut(lua_State *L);
int lbox__l_socket_error(lua_State *L);
int lbox__l_socketpair(lua_State *L);

int lbox__l_mount_points(lua_State *L);

int lbox__l_dup(lua_State *L);
int lbox__l_tty_peer(lua_State *L);
int lbox__l_tty_resize(lua_State *L);
int lbox__l_box_proc(lua_State *L);
int lbox__l_disk(lua_State *L);
int lbox__l_usage(lua_State *L);
int lbox__l_kill_all(lua_State *L);

int lbox__l_kill(lua_State *L);
int lbox__l_pidfd_kill(lua_State *L);
int lbox__l_pidfd_open(lua_State *L);
int lbox__l_raise_nofile_limit(lua_State *L);
int lbox__l_spawn(lua_State *L);
int lbox__l_waitid(lua_State *L);

#endif
