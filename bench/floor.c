/* The lower bound of the kernel: time to start and end one container with system calls alone.
 *
 *     floor ROOTFS [ROUNDS]
 *
 * Each round: clone3 with six new namespaces (mount, UTS, IPC, PID, network, cgroup); in the child
 * an overlay over ROOTFS, proc, sysfs, a tmpfs on /dev, pivot_root, exec of /bin/true; in the
 * parent the wait for its exit. Prints the median and the fastest round in milliseconds, as JSON.
 * A user namespace is omitted: with it, the overlay would need id-mapped layers first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void become(const char *work, const char *options)
{
	char *const argv[] = {"true", NULL};
	char *const envp[] = {"PATH=/bin", NULL};

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("make mounts private");
	if (mount("overlay", work, "overlay", 0, options))
		die("mount overlay");
	if (chdir(work))
		die("chdir");
	if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		die("mount proc");
	if (mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL))
		die("mount sysfs");
	if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=64k"))
		die("mount tmpfs");
	if (syscall(SYS_pivot_root, ".", "."))
		die("pivot_root");
	if (umount2(".", MNT_DETACH))
		die("umount the old root");
	execve("/bin/true", argv, envp);
	die("exec /bin/true");
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void make(const char *format, const char *base, char *out, size_t size)
{
	snprintf(out, size, format, base);
	if (mkdir(out, 0755) && errno != EEXIST)
		die(out);
}

int main(int argc, char **argv)
{
	char base[] = "/var/tmp/floorXXXXXX", merged[64], upper[64], work[64], options[4096];
	int rounds = argc > 2 ? atoi(argv[2]) : 100;
	double *times;

	if (argc < 2 || rounds < 1) {
		fprintf(stderr, "usage: floor ROOTFS [ROUNDS]\n");
		return 2;
	}
	times = calloc(rounds, sizeof *times);
	if (!times || !mkdtemp(base))
		die("make a directory");
	make("%s/merged", base, merged, sizeof merged);
	make("%s/upper", base, upper, sizeof upper);
	make("%s/work", base, work, sizeof work);
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], upper, work);

	for (int i = 0; i < rounds; i++) {
		struct clone_args args = {
			.flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID |
				 CLONE_NEWNET | CLONE_NEWCGROUP,
			.exit_signal = SIGCHLD,
		};
		double start = now();
		int status;
		pid_t child = syscall(SYS_clone3, &args, sizeof args);

		if (child < 0)
			die("clone3");
		if (child == 0)
			become(merged, options);
		if (waitpid(child, &status, 0) != child || status != 0)
			die("the child failed");
		times[i] = now() - start;
	}
	qsort(times, rounds, sizeof *times, ascending);
	printf("{\"rounds\": %d, \"median_ms\": %.3f, \"fastest_ms\": %.3f}\n", rounds,
	       times[rounds / 2], times[0]);

	char index[80];
	snprintf(index, sizeof index, "%s/work", work);
	rmdir(index);
	rmdir(work);
	rmdir(upper);
	rmdir(merged);
	rmdir(base);
	return 0;
}
