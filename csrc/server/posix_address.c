/* lbox.server.posix: addresses. As bytes they are in network order: 4 of IPv4, 16 of IPv6. */
#include "posix.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* address(text) -> bytes; nil when the text is no address */
int lbox__l_address(lua_State *L)
{
  const char *text = luaL_checkstring(L, 1);
  char bytes[16];
  if (inet_pton(AF_INET, text, bytes) == 1)
    lua_pushlstring(L, bytes, 4);
  else if (inet_pton(AF_INET6, text, bytes) == 1)
    lua_pushlstring(L, bytes, 16);
  else
    lua_pushnil(L);
  return 1;
}

/* address_text(bytes) -> text */
int lbox__l_address_text(lua_State *L)
{
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  char text[INET6_ADDRSTRLEN];
  luaL_argcheck(L, len == 4 || len == 16, 1, "4 or 16 bytes");
  inet_ntop(len == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text);
  lua_pushstring(L, text);
  return 1;
}

/* own_addresses() -> list of the addresses of this machine, as bytes */
int lbox__l_own_addresses(lua_State *L)
{
  struct ifaddrs *all;
  lua_newtable(L);
  luaL_checkstack(L, 4, NULL);
  if (getifaddrs(&all) != 0)
    return lbox__fail(L);
  lua_Integer n = 0;
  for (const struct ifaddrs *each = all; each; each = each->ifa_next) {
    if (each->ifa_addr && each->ifa_addr->sa_family == AF_INET) {
      const struct sockaddr_in *v4 = (const void *)each->ifa_addr;
      lua_pushlstring(L, (const char *)&v4->sin_addr, 4);
    } else if (each->ifa_addr && each->ifa_addr->sa_family == AF_INET6) {
      const struct sockaddr_in6 *v6 = (const void *)each->ifa_addr;
      lua_pushlstring(L, (const char *)&v6->sin6_addr, 16);
    } else {
      continue;
    }
    lua_rawseti(L, -2, ++n);
  }
  freeifaddrs(all);
  return 1;
}

/* watch_addresses() -> fd that can be read when those have changed */
int lbox__l_watch_addresses(lua_State *L)
{
  struct sockaddr_nl groups = {.nl_family = AF_NETLINK,
                               .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd >= 0 && bind(fd, (struct sockaddr *)&groups, sizeof groups) != 0) {
    int code = errno;
    close(fd);
    errno = code;
    fd = -1;
  }
  return lbox__push_fd(L, fd);
}
