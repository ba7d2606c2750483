#include "server/net/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DIRECTORY "/dev/net"
#define DEVICE    DIRECTORY "/tun"

enum { TUN_MAJOR = 10, TUN_MINOR = 200 };

int lbox_net_run_with_tun(uid_t uid, char **argv)
{
  /* A directory over that of the machine, which only this process and its children see. */
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("tmpfs", DIRECTORY, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=4k") != 0 ||
      mknod(DEVICE, S_IFCHR | 0666, makedev(TUN_MAJOR, TUN_MINOR)) != 0 || chmod(DEVICE, 0666) != 0)
    return errno;
  if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
    return errno;
  execv(argv[0], argv);
  return errno;
}
