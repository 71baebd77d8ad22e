"""The allow-list of system calls, in groups, each with its reason.

The table was written from syscalls(2) and the kernel's syscall tables (x86_64, i386, arm64, arm) up
to Linux 6.18. A group is listed if ordinary programs of a distribution need it, and if its calls
access only the process itself or objects in the container's namespaces. A name that an architecture
does not have is skipped, so a group lists 32-bit and 64-bit variants.

Absent calls are refused. Notable ones, with their risk:

* ``io_uring_*``: access to most of the kernel that a filter cannot see; many CVEs a year.
* ``bpf``, ``perf_event_open``, ``userfaultfd``: verifier, side channels, race widening.
* ``keyctl``, ``add_key``, ``request_key``: keyrings are not namespaced.
* ``open_by_handle_at``: opens host inodes by guessing ('shocker').
* ``mount`` and the descriptor-based mount calls, ``pivot_root``, ``setns``, ``unshare``, ``clone``
  with namespace flags: a nested user namespace gives the full set of capabilities over code
  that was written for root (CVE-2022-0185).
* ``kexec_*``, modules, ``swapon``, ``acct``, ``quotactl``, ``reboot``, ``iopl``: the whole machine.
* ``memfd_secret``, ``nfsservctl``, ``uselib``, ``vm86``, ``ustat``, ``sysfs``, ``_sysctl``,
  ``lookup_dcookie``: no program needs them.
* ``oldstat``, ``oldlstat``, ``oldfstat``, ``olduname``, ``oldolduname``, ``readdir``, ``nice``,
  ``sigaction``, ``sigpending``, ``sigsuspend``, ``sgetmask``, ``ssetmask``: calls of i386 that C
  libraries have not made since the kernel 2.2.
* ``process_madvise``: changes the memory of another process.

``vmsplice`` is allowed: it needs only pages of the process itself.
"""

from __future__ import annotations

import msgspec


class SyscallGroup(msgspec.Struct, frozen=True):
    """Calls that are allowed for one reason. With ``capability``, the container must have it."""

    name: str
    reason: str
    calls: tuple[str, ...]
    capability: str | None = None


def _group(name: str, reason: str, calls: str, capability: str | None = None) -> SyscallGroup:
    return SyscallGroup(name, reason, tuple(calls.split()), capability)


GROUPS: tuple[SyscallGroup, ...] = (
    _group(
        "files",
        "open, read and write files in the container's mounts; permissions apply",
        """open openat openat2 creat close close_range read readv pread64 preadv preadv2 write
        writev pwrite64 pwritev pwritev2 lseek _llseek truncate truncate64 ftruncate ftruncate64
        fallocate fsync fdatasync sync syncfs sync_file_range sync_file_range2
        arm_sync_file_range fadvise64 fadvise64_64 arm_fadvise64_64 readahead sendfile sendfile64
        copy_file_range splice tee vmsplice flock fcntl fcntl64 dup dup2 dup3 pipe pipe2
        cachestat name_to_handle_at""",
    ),
    _group(
        "directories",
        "create, list, rename and remove names; the device allow-list limits mknod",
        """getdents getdents64 mkdir mkdirat rmdir link linkat symlink symlinkat unlink
        unlinkat rename renameat renameat2 readlink readlinkat mknod mknodat chdir fchdir getcwd
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch""",
    ),
    _group(
        "attributes",
        "read and change metadata of files; owners and modes are those of the user namespace",
        """stat lstat fstat stat64 lstat64 fstat64 newfstatat fstatat64
        statx statfs statfs64 fstatfs fstatfs64 access faccessat faccessat2 chmod fchmod fchmodat
        fchmodat2 chown lchown fchown fchownat chown32 lchown32 fchown32 umask utime utimes
        futimesat utimensat utimensat_time64 setxattr lsetxattr fsetxattr setxattrat getxattr
        lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat removexattr
        lremovexattr fremovexattr removexattrat file_getattr file_setattr""",
    ),
    _group(
        "memory",
        "the address space of the process; no call accesses another process",
        """brk mmap mmap2 munmap mremap mprotect msync madvise mincore mlock mlock2 mlockall
        munlock munlockall remap_file_pages memfd_create pkey_alloc pkey_free pkey_mprotect
        membarrier mseal map_shadow_stack""",
    ),
    _group(
        "processes",
        "start programs, wait for them, and set their names; clone has its own rule",
        """execve execveat fork vfork exit exit_group wait4 waitid waitpid getpid getppid gettid
        getpgid getpgrp getsid setpgid setsid prctl arch_prctl set_tid_address set_thread_area
        get_thread_area modify_ldt set_tls get_tls cacheflush breakpoint riscv_flush_icache
        pidfd_open pidfd_send_signal restart_syscall rseq set_robust_list get_robust_list""",
    ),
    _group(
        "tracing",
        "debuggers and strace; since Linux 4.8 a tracer cannot slip past the filter, and only "
        "processes of the same container and credentials can be traced",
        "ptrace process_vm_readv process_vm_writev process_mrelease",
    ),
    _group(
        "signals",
        "send and receive signals inside the pid namespace",
        """kill tkill tgkill pause alarm signal sigprocmask sigreturn sigaltstack rt_sigaction
        rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigreturn rt_sigqueueinfo rt_tgsigqueueinfo
        rt_sigtimedwait rt_sigtimedwait_time64 signalfd signalfd4""",
    ),
    _group(
        "threads",
        "locks between threads",
        """futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue""",
    ),
    _group(
        "time",
        "read clocks and sleep; adjtimex checks CAP_SYS_TIME itself",
        """time times gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
        clock_nanosleep clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64
        getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime
        timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
        timerfd_gettime64 timerfd_settime timerfd_settime64""",
    ),
    _group(
        "waiting",
        "wait for descriptors",
        """poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create
        epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
        eventfd eventfd2 io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents
        io_pgetevents_time64""",
    ),
    _group(
        "identity",
        "change users and groups inside the map of the user namespace",
        """getuid geteuid getgid getegid getresuid getresgid getgroups getuid32 geteuid32
        getgid32 getegid32 getresuid32 getresgid32 getgroups32 setuid setgid setreuid setregid
        setresuid setresgid setgroups setfsuid setfsgid setuid32 setgid32 setreuid32 setregid32
        setresuid32 setresgid32 setgroups32 setfsuid32 setfsgid32 capget capset""",
    ),
    _group(
        "scheduling",
        "priorities of the container's processes, limited by rlimits and the cgroup",
        """getpriority setpriority ioprio_get ioprio_set sched_yield sched_getparam
        sched_setparam sched_getscheduler sched_setscheduler sched_getattr sched_setattr
        sched_get_priority_max sched_get_priority_min sched_rr_get_interval
        sched_rr_get_interval_time64 sched_getaffinity sched_setaffinity getcpu""",
    ),
    _group(
        "facts",
        "query limits, usage and the system",
        """getrlimit ugetrlimit setrlimit prlimit64 getrusage sysinfo uname
        getrandom riscv_hwprobe lsm_get_self_attr lsm_list_modules""",
    ),
    _group(
        "sockets",
        "use sockets; address families have their own rule",
        """bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt send
        sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 shutdown""",
    ),
    _group(
        "ipc",
        "System V and POSIX objects of the container's ipc namespace",
        """ipc semget semop semtimedop semtimedop_time64 semctl shmget shmat shmdt shmctl msgget
        msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive
        mq_timedreceive_time64 mq_notify mq_getsetattr""",
    ),
    _group(
        "confinement",
        "a program may confine itself further",
        "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
    # -- only with the capability that the kernel requires --------------------------------------
    _group(
        "chroot",
        "package managers and daemons; it does not escape the container's root",
        "chroot",
        "CAP_SYS_CHROOT",
    ),
    _group(
        "administration",
        "mounts and namespaces, for containers that run containers or build images",
        """mount umount umount2 pivot_root mount_setattr move_mount open_tree open_tree_attr
        fsopen fsconfig fsmount fspick statmount listmount setns unshare clone clone3 sethostname
        setdomainname quotactl quotactl_fd fanotify_init fanotify_mark lsm_set_self_attr bpf
        perf_event_open syslog""",
        "CAP_SYS_ADMIN",
    ),
    _group("handles", "open files by handle", "open_by_handle_at", "CAP_DAC_READ_SEARCH"),
    _group("bpf", "load BPF programs", "bpf", "CAP_BPF"),
    _group("perf", "performance counters", "perf_event_open", "CAP_PERFMON"),
    _group("kernel log", "read the kernel's log", "syslog", "CAP_SYSLOG"),
    _group(
        "clock",
        "set the clock",
        "settimeofday stime clock_settime clock_settime64",
        "CAP_SYS_TIME",
    ),
    _group("boot", "restart the machine or the pid namespace", "reboot", "CAP_SYS_BOOT"),
    _group(
        "modules",
        "load kernel modules",
        "init_module finit_module delete_module",
        "CAP_SYS_MODULE",
    ),
    _group("accounting", "process accounting", "acct", "CAP_SYS_PACCT"),
    _group(
        "introspection",
        "compare and copy descriptors of processes, and advise on their memory",
        "kcmp pidfd_getfd process_madvise",
        "CAP_SYS_PTRACE",
    ),
    _group("ports", "I/O ports", "iopl ioperm", "CAP_SYS_RAWIO"),
    _group("hangup", "hang up the terminal", "vhangup", "CAP_SYS_TTY_CONFIG"),
    _group(
        "numa",
        "memory placement",
        "get_mempolicy set_mempolicy mbind set_mempolicy_home_node migrate_pages move_pages",
        "CAP_SYS_NICE",
    ),
)

FAMILIES: tuple[tuple[int, str, str], ...] = (
    (1, "AF_UNIX", "local sockets"),
    (2, "AF_INET", "IPv4"),
    (10, "AF_INET6", "IPv6"),
    (16, "AF_NETLINK", "interfaces and routes of the network namespace; not NETLINK_AUDIT"),
    (17, "AF_PACKET", "packet capture; the kernel requires CAP_NET_RAW in the network namespace"),
)
"""Allowed address families (include/linux/socket.h). The other forty are refused, for example
AF_ALG, AF_VSOCK, AF_XDP, AF_TIPC, AF_RDS, AF_BLUETOOTH and AF_CAN: few hosts use that code, but any
user can reach it. Programs lose kernel crypto offload and virtual machine sockets."""

NETLINK_AUDIT = 9
"""Protocol of AF_NETLINK (linux/netlink.h) that is refused without CAP_AUDIT_CONTROL or
CAP_AUDIT_READ, since the audit system is the host's. The error is EAFNOSUPPORT, as on a kernel
without it: PAM continues then."""

PERSONALITIES: tuple[tuple[int, str], ...] = (
    (0x0, "PER_LINUX"),
    (0x8, "PER_LINUX32"),
    (0x20000, "UNAME26"),
    (0x20008, "PER_LINUX32 with UNAME26"),
    (0xFFFFFFFF, "query the present one"),
)
"""Allowed personalities, as in Docker. ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC are refused,
because they weaken memory protection."""

TERMINAL_REQUESTS: tuple[tuple[int, str], ...] = (
    (0x5412, "TIOCSTI: inserts input into the terminal of the user (CVE-2017-5226)"),
    (0x541C, "TIOCLINUX: the same through the console's selection"),
)
"""Refused ioctl requests. The kernel uses the low 32 bits only (CVE-2019-10063)."""

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (linux/sched.h)."""

SOCKETCALL_MAKERS: tuple[tuple[int, str], ...] = ((1, "SYS_SOCKET"), (8, "SYS_SOCKETPAIR"))
"""socketcall(2) operations that create sockets (linux/net.h)."""
