"""System calls that programs of an interpreter can need, stated for each language.

An interpreter has functions for most system calls of Unix, and its program decides which are used.
So the files of an interpreter say too much. The lists have what a service commonly does: files,
sockets, threads and child processes. Not in them are the administration of the system (mounts,
namespaces, modules, clocks), tracing, System V IPC, io_uring and quotas.
"""

from __future__ import annotations

import re

_START = (
    "access arch_prctl brk close execve exit exit_group fcntl fstat futex getcwd getegid "
    "geteuid getgid getpid getppid getrandom gettid getuid ioctl lseek lstat madvise mmap "
    "mprotect mremap munmap newfstatat open openat poll prctl pread64 prlimit64 read readlink "
    "restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn set_robust_list "
    "set_tid_address sigaltstack stat statx sysinfo uname write"
)
_FILES = (
    "chdir chmod chown copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 "
    "fallocate fchdir fchmod fchmodat fchown fchownat fdatasync fgetxattr flistxattr flock "
    "fstatfs fsync ftruncate getdents64 getxattr inotify_add_watch inotify_init1 "
    "inotify_rm_watch lchown lgetxattr link linkat listxattr memfd_create mkdir mkdirat mlock "
    "msync munlock name_to_handle_at openat2 preadv pwrite64 pwritev readahead readlinkat "
    "readv rename renameat renameat2 rmdir sendfile splice statfs symlink symlinkat "
    "sync_file_range tee truncate umask unlink unlinkat utime utimensat utimes writev"
)
_SOCKETS = (
    "accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_pwait "
    "epoll_pwait2 epoll_wait eventfd2 getpeername getsockname getsockopt listen pipe pipe2 "
    "ppoll pselect6 recvfrom recvmmsg recvmsg select sendmmsg sendmsg sendto setsockopt "
    "shutdown signalfd4 socket socketpair timerfd_create timerfd_gettime timerfd_settime"
)
_THREADS = (
    "clone3 clock_getres clock_gettime clock_nanosleep clone futex_waitv getcpu getpriority "
    "gettimeofday membarrier mincore nanosleep rt_sigpending rt_sigsuspend rt_sigtimedwait "
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam "
    "sched_getscheduler sched_setaffinity sched_setscheduler sched_yield setpriority tgkill "
    "time timer_create timer_delete timer_getoverrun timer_gettime timer_settime times tkill"
)
_PROCESSES = (
    "alarm capget close_range fork getgroups getitimer getpgid getpgrp getresgid getresuid "
    "getrlimit getrusage getsid kill pause pidfd_open pidfd_send_signal rt_sigqueueinfo "
    "setgid setgroups setitimer setpgid setregid setresgid setresuid setreuid setrlimit "
    "setsid setuid vfork wait4 waitid"
)
SERVICE = frozenset(f"{_START} {_FILES} {_SOCKETS} {_THREADS} {_PROCESSES}".split())
"""System calls that services commonly make."""

LANGUAGES: dict[str, frozenset[str]] = {
    "python": SERVICE,
    "ruby": SERVICE,
    "perl": SERVICE,
    "php": SERVICE,
    # Shared memory between processes, and memory that is not dumped.
    "node": SERVICE | {"mlock2", "pkey_alloc", "pkey_free", "pkey_mprotect"},
    "java": SERVICE | {"get_mempolicy", "mbind", "set_mempolicy", "mlock2"},
}
"""The calls by language, with those that start a program."""

_NAMES = re.compile(
    r"(?:(python)[23]?(?:\.\d+)?t?|(pypy)[23]?(?:\.\d+)?|(ruby)(?:\d(?:\.\d+)?)?|(perl)(?:5[\d.]*)?"
    r"|(php)(?:-fpm|-cgi)?[\d.]*|(node|nodejs)|(java))"
)


def language_of(program: str) -> str:
    """Return the language that a program interprets, by the name of its file; '' if none."""
    match = _NAMES.fullmatch(program.rpartition("/")[2])
    if match is None:
        return ""
    name = next(each for each in match.groups() if each)
    return {"pypy": "python", "nodejs": "node"}.get(name, name)
