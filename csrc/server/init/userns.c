#include "server/init/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0)
    return errno;
  int code = write(fd, text, strlen(text)) < 0 ? errno : 0;
  close(fd);
  return code;
}

int lbox_userns_map(unsigned inside_uid, unsigned uid, unsigned inside_gid, unsigned gid)
{
  char map[64];
  int code;
  snprintf(map, sizeof map, "%u %u 1\n", inside_uid, uid);
  if ((code = write_file("/proc/self/uid_map", map)) != 0 ||
      (code = write_file("/proc/self/setgroups", "deny")) != 0)
    return code;
  snprintf(map, sizeof map, "%u %u 1\n", inside_gid, gid);
  return write_file("/proc/self/gid_map", map);
}
