-- Attacks from inside of a box: getting rights, or at the kernel by calls that a box has no business with.
local attacks = require "spec.support.attacks"
local support = require "spec.support.local"

-- System calls by number, since the C library has no function for many of them, and may refuse by itself.
local CALLS = [[
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
new = dict(clone3=435, fsopen=430, open_tree=428, move_mount=429, fsmount=432, mount_setattr=442, io_uring_setup=425)
number = dict(new, **(dict(mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272, setns=308, clone=56,
    keyctl=250, add_key=248, request_key=249, bpf=321, perf_event_open=298, userfaultfd=323, ptrace=101,
    process_vm_readv=310, init_module=175, reboot=169, syslog=103, setuid=105, setgid=106, setresuid=117, capset=126,
    open_by_handle_at=304, kexec_load=246, swapon=167, acct=163, quotactl=179, mknod=133, iopl=172, prlimit64=302,
    setpriority=141, ioprio_set=251, sched_setparam=142, sched_setscheduler=144, sched_setaffinity=203,
    sched_setattr=314) if x86 else
    dict(mount=40, umount2=39, pivot_root=41, chroot=51, unshare=97, setns=268, clone=220,
    keyctl=219, add_key=217, request_key=218, bpf=280, perf_event_open=241, userfaultfd=282, ptrace=117,
    process_vm_readv=270, init_module=105, reboot=142, syslog=116, setuid=146, setgid=144, setresuid=147, capset=91,
    open_by_handle_at=265, kexec_load=104, swapon=224, acct=89, quotactl=60, prlimit64=261,
    setpriority=140, ioprio_set=30, sched_setparam=118, sched_setscheduler=119, sched_setaffinity=122,
    sched_setattr=274)))
EPERM, ENOSYS = 1, 38
def attempt(name, *args, want=(EPERM,)):
    if name not in number: return
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number[name]), *args)
    if result == 0 and name in ('clone', 'clone3'): os._exit(0)
    if result != -1 or ctypes.get_errno() not in want:
        print(name, [getattr(a, 'value', a) for a in args], result, os.strerror(ctypes.get_errno()))
]]

describe("an attack on the kernel:", function()
  local attack

  setup(function()
    attack = attacks.start()
  end)

  teardown(function()
    attack:stop()
  end)

  after_each(function()
    attack:check()
  end)

  --- Runs attempts that all have to be refused.
  local function refused(code)
    local status, text = attack:python(CALLS .. code)
    assert.are.equal("", text)
    assert.are.equal(0, status)
  end

  it("setuid programs, and becoming somebody else", function()
    assert.matches("NoNewPrivs:%s+1", select(2, attack:run("cat /proc/self/status")))
    assert.matches("CapEff:%s+0000000000000000", select(2, attack:run("cat /proc/self/status")))
    assert.matches("CapBnd:%s+0000000000000000", select(2, attack:run("cat /proc/self/status")))
    for _, command in ipairs { "su -c id", "sudo -n id", "newgrp root -c id", "mount -t tmpfs none /tmp", "chroot / id",
      "setpriv --reuid 0 id", "setcap cap_sys_admin+ep /tmp/x" } do
      assert.are_not.equal(0, (attack:run("cp /bin/sh /tmp/x; " .. command)), command)
    end
    refused [[
for who in 0, 1001, 65534:
    attempt('setuid', who, want=(EPERM, 22)); attempt('setgid', who, want=(EPERM, 22))
    attempt('setresuid', who, who, who, want=(EPERM, 22))
attempt('capset', struct.pack('Ii', 0x20080522, 0), struct.pack('IIIIII', *[0xffffffff, 0xffffffff, 0] * 2))
]]
  end)

  it("a setuid file, left for somebody outside", function()
    attack:run("cp /bin/sh /tmp/sh && chmod 6755 /tmp/sh")
    local path = ("%s/data/boxes/%s/root/tmp/sh"):format(attack.server.dir, attack.box.id)
    assert.are_not.equal("0\n", (support.sh("stat -c %u " .. path)))
    -- Nobody else gets through to it.
    if support.sh("id -u") == "0\n" then
      local out, status = support.sh(
        ("setpriv --reuid 65533 --regid 65533 --clear-groups sh -c '%s -c id'"):format(path))
      assert.are_not.equal(0, status, out)
    end
    assert.matches("^7[01][01]\n$", (support.sh(("stat -c %%a %s/data/boxes/%s"):format(attack.server.dir,
      attack.box.id))))
  end)

  it("mounts, in old ways and new, and another root", function()
    refused [[
attempt('mount', b'none', b'/tmp', b'tmpfs', 0, 0)
attempt('mount', b'/', b'/tmp', 0, 4096, 0)
attempt('mount', b'none', b'/proc/sys', 0, 32, 0)
attempt('umount2', b'/proc/sys', 2); attempt('umount2', b'/usr', 0)
attempt('pivot_root', b'/tmp', b'/tmp'); attempt('chroot', b'/tmp')
attempt('fsopen', b'tmpfs', 0); attempt('open_tree', -100, b'/', 1); attempt('move_mount', -100, b'/', -100, b'/tmp', 0)
attempt('fsmount', 3, 0, 0); attempt('mount_setattr', -100, b'/', 0, struct.pack('QQQQ', 0, 1, 0, 0), 32)
attempt('open_by_handle_at', -100, struct.pack('IiQ', 8, 1, 2), 0); attempt('mknod', b'/tmp/mem', 0o020666, 257)
]]
    for _, path in ipairs { "/usr/x", "/etc/x", "/usr/bin/ls", "/dev/x", "/run/lbox/bin/lbox" } do
      assert.are_not.equal(0, (attack:run("echo x >> " .. path)), path)
    end
  end)

  it("new namespaces, and those of others", function()
    refused [[
for flag in 0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000, 0x2000000:
    attempt('unshare', flag); attempt('clone', flag | 17, 0, 0, 0, 0)
    attempt('clone', flag | 17 | 1 << 32, 0, 0, 0, 0)
attempt('unshare', 0x80)
attempt('clone3', struct.pack('QQQQQQQQ', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64, want=(ENOSYS,))
for kind in 'user', 'mnt', 'net', 'pid':
    attempt('setns', os.open('/proc/self/ns/' + kind, os.O_RDONLY), 0)
]]
    assert.are_not.equal(0, (attack:run("unshare -Ur true")))
    assert.are_not.equal(0, (attack:run("nsenter -t 1 -a true")))
  end)

  it("key rings", function()
    refused [[
attempt('add_key', b'user', b'x', b'y', 1, -3); attempt('request_key', b'user', b'x', 0, -3)
for operation in 0, 1, 3, 6, 11, 12, 22: attempt('keyctl', operation, -3, 1, 0, 0)
]]
  end)

  it("raw sockets, and other families than a box needs", function()
    refused [[
for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 768), (17, 2, 768), (40, 1, 0), (38, 5, 0),
    (16, 3, 15), (16, 3, 9), (16, 3, 12), (31, 5, 0), (29, 3, 1), (15, 3, 2), (44, 3, 0), (21, 5, 0), (43, 1, 0)):
    try:
        socket.socket(family, kind, protocol)
        print('socket', family, kind, protocol)
    except OSError: pass
]]
  end)

  it("tracing, reading or starving pid 1, also by a process id that only the kernel reads as 1", function()
    refused [[
limit, cpus = struct.pack('QQ', 4, 4), struct.pack('Q', 1)
zero, idle = struct.pack('i', 0), struct.pack('IIQiIQQQ', 48, 5, 0, 19, 0, 0, 0, 0)
vector = struct.pack('QQ', 4096, 8)
for one in 1, 1 | 1 << 32:
    attempt('ptrace', 16, one, 0, 0); attempt('ptrace', 0x4206, one, 0, 0)
    attempt('process_vm_readv', one, vector, 1, vector, 1, 0)
    attempt('prlimit64', one, 7, limit, 0)
    for which in 0, 1: attempt('setpriority', which, one, 19)
    for which in 1, 2: attempt('ioprio_set', which, one, 3 << 13)
    attempt('sched_setaffinity', one, 8, cpus)
    attempt('sched_setscheduler', one, 5, zero)
    attempt('sched_setparam', one, zero)
    attempt('sched_setattr', one, idle, 0)
for who in 0, 1000:
    attempt('setpriority', 2 | 1 << 32, who, 19)
    attempt('ioprio_set', 3, who, 3 << 13)
for name in 'environ', 'mem', 'maps', 'stack', 'syscall', 'auxv', 'fd/3', 'root/etc', 'cwd/etc', 'io':
    try: print(name, open('/proc/1/' + name, 'rb').read(1))
    except OSError: pass
]]
  end)

  it("the kernel's settings, modules, logs, tracing and other doors", function()
    refused [[
attempt('bpf', 5, struct.pack('IIQ', 1, 1, 0) + b'\0' * 100, 116)
attempt('perf_event_open', struct.pack('II', 1, 112) + b'\0' * 104, 0, -1, -1, 0)
attempt('userfaultfd', 0); attempt('io_uring_setup', 4, b'\0' * 120, want=(ENOSYS,))
attempt('init_module', b'x', 1, b''); attempt('kexec_load', 0, 0, 0, 0); attempt('reboot', 0xfee1dead, 672274793, 0, 0)
attempt('syslog', 3, b'\0' * 100, 100); attempt('swapon', b'/tmp/x', 0); attempt('acct', 0)
attempt('quotactl', 0x800002, b'/', 0, 0); attempt('iopl', 3, want=(EPERM, ENOSYS))
for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/overcommit_memory',
    '/proc/sys/fs/binfmt_misc/register', '/proc/1/oom_score_adj', '/sys/kernel/uevent_helper', '/dev/mem', '/dev/kmsg'):
    try:
        os.write(os.open(path, os.O_WRONLY), b'0')
        print('wrote', path)
    except OSError: pass
for path in '/proc/kcore', '/proc/kmsg', '/dev/mem', '/dev/kmsg', '/sys/kernel':
    try:
        os.read(os.open(path, os.O_RDONLY), 1)
        print('read', path)
    except OSError: pass
]]
  end)

  it("system calls of another architecture, which the filter would not know", function()
    local status, text = attack:python([[
import ctypes, mmap, os, sys
if os.uname().machine != 'x86_64': sys.exit(159)
def run(code):
    m = mmap.mmap(-1, 4096, prot=7); m.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()
# x32: the number with bit 30
libc = ctypes.CDLL(None, use_errno=True)
if os.fork() == 0:
    os._exit(0 if libc.syscall(ctypes.c_long(0x40000000 | 272), ctypes.c_long(0x10000000)) == 0 else 1)
if os.wait()[1] == 0: print('x32 works')
# unshare(CLONE_NEWUSER) by int 0x80
result = run(b'\x53\xb8\x36\x01\x00\x00\xbb\x00\x00\x00\x10\xcd\x80\x5b\xc3')
if result == 0: print('int 0x80 works')
sys.exit(159 if result < 0 else 0)
]])
    assert.are.equal("", text:gsub("Bad system call[^\n]*\n", ""))
    assert.are.equal(159, status)
  end)

  it("its programs may still change their own limits and priorities", function()
    for _, command in ipairs {
      "ulimit -n 100 && ulimit -c 0", "bash -c 'ulimit -Sn 64; ulimit -n'", "prlimit --nofile=100 true",
      "prlimit --pid 1 --nofile", "python3 -c 'import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 64))'",
      "nice -n 5 true", "renice -n 5 $$", "ionice -c 3 true", "taskset -p 1 $$", "chrt -i 0 true",
      "! command -v node || node -e 0",
    } do
      local code, text = attack:run(command)
      assert.are.equal(0, code, command .. ": " .. text)
    end
  end)
end)
