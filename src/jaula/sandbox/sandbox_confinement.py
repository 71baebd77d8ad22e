"""The confinement of a sandboxed process: what it gives up before it sees a stranger's byte.

In this order: resource limits, its ids, every capability, the means to gain one, the files and
ports (Landlock), and last the system calls (seccomp). None of it can be undone.

Facts about the ids: after setresuid(2) away from root the process is not dumpable, so no other
process of nobody can trace it or read its memory (ptrace(2), PTRACE_MODE_ATTACH).

Facts about memory: RLIMIT_AS counts the address space, so it is set relative to what the
interpreter has mapped. An allocation beyond it fails, and Python raises MemoryError. The stack of
the first thread grows by faults, and one that RLIMIT_AS refuses is a SIGSEGV (mm/mmap.c,
acct_stack_growth). So the stack gets all its addresses first; only touched pages use memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterable

from jaula.kernel import capabilities, landlock, process_calls, seccomp
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.seccomp import NATIVE, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
from jaula.sandbox.sandbox_limits import Limits, Rights
from jaula.security.seccomp.compiler import ArgCondition, SyscallRule, assemble

_NO_FILES = "/proc/self/fdinfo"
"""A directory without files of others: stat(2) of a path, which the filter cannot tell from that of
a descriptor and Landlock does not check, finds nothing."""

_STACK = 8 << 20  # bytes of the first thread, RLIMIT_STACK
_PROT_EXEC = 4  # mmap(2)
_FIONBIO = 0x5421  # ioctl_tty(2); Python sets the mode of a socket with it
_NAMESPACES = 0x7E020080  # CLONE_NEW*, namespaces(7)
_THREAD = 0x10000  # CLONE_THREAD, clone(2)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0  # getaddrinfo(3) asks it for the addresses of the host
_ALLOW = SyscallRule(SECCOMP_RET_ALLOW)
_REFUSE = SECCOMP_RET_ERRNO | errno.EPERM

_BASE = """
read readv pread64 write writev lseek close fstat newfstatat fstat64 getdents64 fcntl dup dup2 dup3
recvmsg recvfrom sendmsg sendto poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait
epoll_pwait pipe2 eventfd2 memfd_create ftruncate
munmap mremap brk madvise futex rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack
restart_syscall clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times
getrandom getpid gettid getuid geteuid getgid getegid sched_yield sched_getaffinity getrusage
getrlimit uname exit exit_group rseq set_robust_list
"""
_GROUPS = {
    "files": """
        open openat openat2 stat lstat access faccessat faccessat2 readlink readlinkat statx statfs
        fstatfs getcwd chdir fchdir mkdir mkdirat unlink unlinkat rmdir rename renameat renameat2
        link linkat symlink symlinkat chmod fchmod fchmodat utimensat truncate fallocate fsync
        fdatasync sync_file_range flock pwrite64 pwritev preadv copy_file_range fadvise64 umask
        getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr sendfile
    """,
    "network": """
        socket socketpair connect bind listen accept accept4 getsockname getpeername setsockopt
        getsockopt shutdown sendmmsg recvmmsg
    """,
    "threads": "set_tid_address sched_setaffinity membarrier tgkill",
}


def call_names(calls: tuple[str, ...]) -> set[str]:
    """Return the system calls of a computation and those of ``calls``, groups or single ones."""
    names = set(_BASE.split())
    for name in calls:
        names.update(_GROUPS.get(name, name).split())
    return names


def filter_program(calls: tuple[str, ...]) -> bytes:
    """Return the filter of a sandboxed process: an allow-list, of the native architecture only.

    No memory becomes executable. ``calls`` has names of groups and of single calls.
    """
    names = call_names(calls)
    not_executable = SyscallRule(
        SECCOMP_RET_ALLOW, (ArgCondition(2, "SCMP_CMP_MASKED_EQ", _PROT_EXEC, 0),)
    )
    rules = {name: [_ALLOW] for name in names}
    rules |= {"mmap": [not_executable], "mprotect": [not_executable]}
    if "network" in calls:
        non_blocking = ArgCondition(1, "SCMP_CMP_EQ", _FIONBIO)
        rules["ioctl"] = [SyscallRule(SECCOMP_RET_ALLOW, (non_blocking,))]
        rules |= socket_rules(unix=False)
    if "threads" in calls:
        thread = ArgCondition(0, "SCMP_CMP_MASKED_EQ", _NAMESPACES | _THREAD, _THREAD)
        rules["clone"] = [SyscallRule(SECCOMP_RET_ALLOW, (thread,))]
        rules["clone3"] = [SyscallRule(SECCOMP_RET_ERRNO | errno.ENOSYS)]
    table = {
        number: found
        for name, found in rules.items()
        if (number := seccomp.resolve(name, NATIVE)) is not None
    }
    return assemble([(NATIVE, table)], _REFUSE)


def socket_rules(*, unix: bool) -> dict[str, list[SyscallRule]]:
    """Return the rules of a client of the internet: its sockets, and pairs between its threads.

    ``unix`` also allows it to connect to services of the host.
    """
    families = (_AF_INET, _AF_INET6, *((_AF_UNIX,) if unix else ()))
    netlink = (
        ArgCondition(0, "SCMP_CMP_EQ", _AF_NETLINK),
        ArgCondition(2, "SCMP_CMP_EQ", _NETLINK_ROUTE),
    )
    allowed = [(ArgCondition(0, "SCMP_CMP_EQ", family),) for family in families]
    pair = ArgCondition(0, "SCMP_CMP_EQ", _AF_UNIX)
    return {
        "socket": [SyscallRule(SECCOMP_RET_ALLOW, when) for when in (*allowed, netlink)],
        "socketpair": [SyscallRule(SECCOMP_RET_ALLOW, (pair,))],
    }


def enter(ids: tuple[int, int], limits: Limits, rights: Rights, parent: int | None = None) -> None:
    """Enter the confinement, irreversibly. The process must have one thread.

    With ``parent`` the kernel kills it at the end of the thread that made it; the filter keeps the
    process from changing that.

    :raises OSError: if the kernel refuses a part of it.
    """
    program = seccomp.FilterProgram(filter_program(rights.calls))
    rules = _ruleset(rights)
    _set_limits(limits)
    if os.geteuid() == 0:
        if "files" not in rights.calls:
            os.chroot(_NO_FILES)
            os.chdir("/")
        set_ids(*ids)
    else:
        capabilities.capset(0, 0, 0)
    process_calls.prctl(process_calls.PR_SET_DUMPABLE, 0)
    process_calls.prctl(process_calls.PR_SET_NO_NEW_PRIVS, 1)
    if parent is not None:
        process_calls.die_with_parent(parent)  # after the change of ids, which resets it
    if rules is not None:
        landlock.restrict_self(rules)
        os.close(rules)
    seccomp.install(program)


def set_ids(uid: int, gid: int) -> None:
    """Set the ids of a process of root, and drop every capability and group, irreversibly."""
    capabilities.clear_ambient()
    capabilities.drop_bounding(0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    capabilities.capset(0, 0, 0)


def lower_limits(limits: Iterable[tuple[int, int]]) -> None:
    """Set resource limits, each as ``RLIMIT_*`` and its value. One never exceeds the hard limit."""
    for which, limit in limits:
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, limit))


def _map_stack() -> None:
    """Let the stack of the first thread have the addresses of its limit, as one fault does.

    A kernel before 6.5 checks nothing but the limit, a later one only that the stack is the mapping
    above the address.
    """
    lower_limits(((resource.RLIMIT_STACK, _STACK),))
    size = resource.getrlimit(resource.RLIMIT_STACK)[0]
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        stack = next(line for line in file if line.endswith("[stack]\n"))
    start, end = (int(address, 16) for address in stack.split()[0].split("-"))
    lowest = end - size // resource.getpagesize() * resource.getpagesize()
    if lowest < start:
        ctypes.c_char.from_address(lowest).value = b"\0"


def _set_limits(limits: Limits) -> None:
    _map_stack()
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.descriptors),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ]
    if limits.memory:
        wanted.append((resource.RLIMIT_AS, mapped + limits.memory))
    lower_limits(wanted)
    if limits.processor:  # SIGXCPU at the limit names the reason, SIGKILL later enforces it
        resource.setrlimit(resource.RLIMIT_CPU, (limits.processor, limits.processor + 2))


def _ruleset(rights: Rights) -> int | None:
    """Return the rules of Landlock, None if the kernel has none.

    Without them the filter still refuses to open a file, or to create a socket, unless
    ``rights`` have the group.
    """
    try:
        supported = landlock.supported_rights(landlock.abi_version())
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise
    net = 0 if "network" in rights.calls else supported.access_net
    rules = landlock.create_ruleset(supported.access_fs, net, supported.scoped)
    read = FS.READ_FILE | FS.READ_DIR
    for path in rights.read:
        _allow(rules, path, read & supported.access_fs)
    for path in rights.write:
        _allow(rules, path, supported.access_fs & ~FS.EXECUTE)
    return rules


def _allow(rules: int, path: str, access: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            access &= FS.READ_FILE | FS.WRITE_FILE | FS.TRUNCATE | FS.IOCTL_DEV
        landlock.add_path_beneath(rules, fd, access)
    finally:
        os.close(fd)
