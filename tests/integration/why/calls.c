/*
 * The calls of the table of support questions: `calls NAME [ARGUMENT]` makes one that a container
 * refuses. It prints the error and exits with 0, so that only the report of `jaula why` is tested.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/quota.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <grp.h>
#include <arpa/inet.h>

static long number(const char *text)
{
	return text ? strtol(text, 0, 0) : 0;
}

static int inet(int type, const char *address, int port, int to_bind)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timeval timeout = { .tv_sec = 2 };
	int descriptor = socket(AF_INET, type, 0);

	inet_pton(AF_INET, address, &name.sin_addr);
	setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (to_bind)
		return bind(descriptor, (void *)&name, sizeof(name));
	return connect(descriptor, (void *)&name, sizeof(name));
}

static int fill(const char *path, long size)
{
	static char block[1 << 16];
	int descriptor = open(path, O_WRONLY | O_CREAT, 0600);

	for (long done = 0; done < size; done += sizeof(block))
		if (write(descriptor, block, sizeof(block)) < 0)
			return -1;
	return 0;
}

static int run(const char *name, const char *a, const char *b)
{
	struct rlimit limit = { 1 << 20, 1 << 20 };
	struct timespec when = { 1, 0 };
	struct ifreq request = { .ifr_flags = IFF_TUN };
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(event) };
	gid_t group = 70000;
	long value = number(a);
	char buffer[512] = {};

#define IS(text) (!strcmp(name, text))
	if (IS("mount"))
		return mount("none", "/mnt", a ? a : "tmpfs", 0, 0);
	if (IS("mount-proc"))
		return mount("proc", "/mnt", "proc", 0, 0);
	if (IS("remount")) /* the mount at a path, writable and with set-user-ID programs */
		return mount(0, a, 0, MS_REMOUNT | MS_BIND, 0);
	if (IS("remount-all"))
		return mount(0, a, 0, MS_REMOUNT, 0);
	if (IS("rebind"))
		return mount(a, "/mnt", 0, MS_BIND, 0);
	if (IS("nft")) { /* the beginning of a batch, as of nft and iptables-nft */
		struct {
			struct nlmsghdr head;
			unsigned char family, version;
			unsigned short resource;
		} begin = { { sizeof(begin), 16, NLM_F_REQUEST, 1, 0 }, 0, 0, htons(10) };
		int descriptor = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);

		return sendto(descriptor, &begin, sizeof(begin), 0, 0, 0) < 0 ? -1 : 0;
	}
	if (IS("iptables")) { /* IPT_SO_SET_REPLACE of iptables-legacy */
		int descriptor = socket(AF_INET, SOCK_DGRAM, 0);

		return setsockopt(descriptor, IPPROTO_IP, 64, buffer, sizeof(buffer));
	}
	if (IS("fsopen"))
		return syscall(SYS_fsopen, "fuse", 0);
	if (IS("open"))
		return open(a, (b ? number(b) : O_RDONLY) | O_CLOEXEC, 0600);
	if (IS("setgroups"))
		return setgroups(1, &group);
	if (IS("setuid"))
		return setuid(value);
	if (IS("syslog"))
		return syscall(SYS_syslog, 3, buffer, sizeof(buffer));
	if (IS("chown"))
		return chown(a, number(b), -1);
	if (IS("bind"))
		return inet(SOCK_STREAM, a, number(b), 1);
	if (IS("bind-twice"))
		return inet(SOCK_STREAM, a, number(b), 1) || listen(3, 1) ||
		       inet(SOCK_STREAM, a, number(b), 1);
	if (IS("connect"))
		return inet(SOCK_STREAM, a, number(b), 0);
	if (IS("send")) {
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(number(b)) };

		inet_pton(AF_INET, a, &to.sin_addr);
		return sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&to, sizeof(to));
	}
	if (IS("clock"))
		return clock_settime(CLOCK_REALTIME, &when);
	if (IS("perf"))
		return syscall(SYS_perf_event_open, &event, 0, -1, -1, 0);
	if (IS("tun"))
		return ioctl(open("/dev/net/tun", O_RDWR), TUNSETIFF, &request);
	if (IS("io_uring"))
		return syscall(SYS_io_uring_setup, 1, buffer);
	if (IS("unshare"))
		return unshare(value);
	if (IS("clone"))
		return syscall(SYS_clone, value | SIGCHLD, 0, 0, 0, 0);
	if (IS("clone3"))
		return syscall(SYS_clone3, buffer, 64);
	if (IS("setns"))
		return setns(open("/proc/self/ns/net", O_RDONLY), 0);
	if (IS("chroot"))
		return chroot("/tmp");
	if (IS("mknod"))
		return mknod("/tmp/node", S_IFCHR | 0600, makedev(1, 1));
	if (IS("swapon"))
		return swapon("/tmp", 0);
	if (IS("keyctl"))
		return syscall(SYS_keyctl, 0, -3, 0, 0, 0);
	if (IS("add_key"))
		return syscall(SYS_add_key, "user", "x", "y", 1, -3);
	if (IS("bpf"))
		return syscall(SYS_bpf, 0, buffer, 64);
	if (IS("ptrace"))
		return ptrace(PTRACE_ATTACH, value, 0, 0);
	if (IS("kill"))
		return kill(value, SIGTERM);
	if (IS("nice"))
		return setpriority(PRIO_PROCESS, 0, value);
	if (IS("realtime")) {
		struct sched_param priority = { .sched_priority = 5 };

		return sched_setscheduler(0, SCHED_FIFO, &priority);
	}
	if (IS("ulimit"))
		return setrlimit(RLIMIT_NOFILE, &limit);
	if (IS("mlock"))
		return mlock(mmap(0, 1 << 24, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1 << 24);
	if (IS("chattr")) {
		int flags = FS_IMMUTABLE_FL;

		return ioctl(open(a, O_RDONLY), FS_IOC_SETFLAGS, &flags);
	}
	if (IS("pivot_root"))
		return syscall(SYS_pivot_root, "/tmp", "/tmp");
	if (IS("reboot"))
		return syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0);
	if (IS("kexec"))
		return syscall(SYS_kexec_load, 0, 0, 0, 0);
	if (IS("insmod"))
		return syscall(SYS_finit_module, 0, "", 0);
	if (IS("quotactl"))
		return quotactl(QCMD(Q_SYNC, USRQUOTA), 0, 0, 0);
	if (IS("handle")) {
		struct { unsigned bytes; int type; char data[8]; } handle = { 8, 1, {} };

		return syscall(SYS_open_by_handle_at, open("/", O_RDONLY), &handle, 0);
	}
	if (IS("userfaultfd"))
		return syscall(SYS_userfaultfd, 0);
	if (IS("acct"))
		return syscall(SYS_acct, 0);
	if (IS("iopl"))
		return syscall(SYS_iopl, 3);
	if (IS("hostname"))
		return sethostname("x", 1);
	if (IS("personality"))
		return personality(ADDR_NO_RANDOMIZE);
	if (IS("sti"))
		return ioctl(0, 0x5412, "x");
	if (IS("fill"))
		return fill(a, number(b));
	if (IS("files")) {
		int descriptor;

		while ((descriptor = dup(0)) >= 0)
			;
		return descriptor;
	}
	if (IS("fork")) {
		for (int i = 0; i < 500; i++) {
			int child = fork();

			if (child < 0)
				return -1;
			if (!child)
				pause();
		}
		return 0;
	}
	if (IS("memory"))
		for (long done = 0;; done += 1 << 20)
			memset(malloc(1 << 20), 1, 1 << 20);
	if (IS("reserve"))
		return mmap(0, 1l << 34, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
	if (IS("socket"))
		return socket(value, b ? number(b) : SOCK_DGRAM, 0);
	if (IS("raw"))
		return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	if (IS("audit"))
		return socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
	if (IS("socket32")) {
		int result;

		/* socket(AF_ALG, ...) of the i386 ABI */
		asm volatile("int $0x80" : "=a"(result) : "0"(359), "b"(38), "c"(5), "d"(0) : "memory");
		errno = -result;
		return result < 0 ? -1 : 0;
	}
	if (IS("mq")) {
		limit.rlim_cur = limit.rlim_max = 0;
		return setrlimit(RLIMIT_MSGQUEUE, &limit);
	}
	if (IS("exec")) {
		execl(a, a, (char *)0);
		return -1;
	}
	if (IS("write"))
		return write(open(a, O_WRONLY), "1", 1);
	if (IS("segv"))
		*(volatile int *)8 = 1;
	if (IS("abort"))
		abort();
	if (IS("raise"))
		return kill(getpid(), value);
	if (IS("setuid-root")) {
		prctl(PR_SET_DUMPABLE, 1);
		return setuid(0);
	}
	if (IS("prctl-tsc"))
		return prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, 0, 0, 0);
	if (IS("fanotify"))
		return syscall(SYS_fanotify_init, 4, 0);
	if (IS("pidfd_getfd"))
		return syscall(SYS_pidfd_getfd, 0, 0, 0);
	if (IS("vhangup"))
		return syscall(SYS_vhangup);
	if (IS("umount"))
		return umount("/proc");
	if (IS("unlink"))
		return unlink(a);
	fprintf(stderr, "unknown call %s\n", name);
	exit(99);
}

int main(int count, char **words)
{
	errno = 0;
	if (count < 2)
		return 99;
	if (run(words[1], words[2], count > 3 ? words[3] : 0) < 0)
		printf("%s: %s\n", words[1], strerror(errno));
	else
		printf("%s: allowed\n", words[1]);
	if (!strcmp(words[1], "fork"))
		kill(0, SIGKILL);
	return 0;
}
