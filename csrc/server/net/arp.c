#include "server/net/arp.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int lbox_net_announce(const char *device, uint32_t address)
{
  struct ifreq about = {0};
  struct {
    struct arphdr head;
    uint8_t sender[ETH_ALEN], sender_ip[4], target[ETH_ALEN], target_ip[4];
  } __attribute__((packed)) packet = {.head = {.ar_hrd = htons(ARPHRD_ETHER),
                                               .ar_pro = htons(ETH_P_IP),
                                               .ar_hln = ETH_ALEN,
                                               .ar_pln = 4,
                                               .ar_op = htons(ARPOP_REQUEST)}};
  int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return errno;
  strncpy(about.ifr_name, device, sizeof about.ifr_name - 1);
  int code = ioctl(fd, SIOCGIFHWADDR, &about) == 0 ? 0 : errno;
  if (code == 0) {
    memcpy(packet.sender, about.ifr_hwaddr.sa_data, ETH_ALEN);
    memcpy(packet.sender_ip, &address, 4);
    memcpy(packet.target_ip, &address, 4);
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ARP),
                             .sll_ifindex = (int)if_nametoindex(device),
                             .sll_halen = ETH_ALEN};
    memset(to.sll_addr, 0xff, ETH_ALEN);
    if (sendto(fd, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) < 0)
      code = errno;
  }
  close(fd);
  return code;
}
