"""Confine git(1) for a build. :mod:`jaula.features.build.files.remote.git` starts this program.

``git_program.py SETTINGS COMMAND...`` with a JSON object: the import path, the ids, the descriptor
of the directory, the path at which it is mounted, whether Unix sockets are needed, as by ssh with
an agent, and the pid of the engine, with which it ends.

git runs with its helpers (git-remote-http, index-pack, ssh) in a mount, pid and IPC namespace of
its own, in which every other mount is read-only. It has nobody's ids, no capability and no way to
gain one, and limits of memory, processor time, processes and the size of a file. Landlock, if the
kernel has it, allows reading the system, writing to the directory and no listening port. The filter
allows the calls of git, its helpers and the dynamic loader; no mapping is writable and executable.

git processes untrusted data. An exploited fault in it finds nothing to access. It keeps the host's
network, which it needs; the addresses that it is given limit its peers.

Facts about pid namespaces: git is process 1 of its own, so every process below it ends with it. The
kernel delivers only signals with a handler to it, and those that end it by force; write(2) to a
closed pipe and the limits of a file return errors.
"""

from __future__ import annotations

import json
import os
import sys

SETTINGS = json.loads(sys.argv[1])
sys.path[:] = SETTINGS["path"]

import errno  # noqa: E402 - below the import path of the engine
import resource  # noqa: E402
import signal  # noqa: E402

from jaula.kernel import landlock, mounts, namespaces, process_calls, seccomp  # noqa: E402
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS  # noqa: E402
from jaula.kernel.landlock import LANDLOCK_ACCESS_NET as NET  # noqa: E402
from jaula.kernel.mounts import MOUNT_ATTR, MS  # noqa: E402
from jaula.kernel.namespaces import CLONE  # noqa: E402
from jaula.kernel.seccomp import NATIVE, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO  # noqa: E402
from jaula.sandbox import sandbox_confinement  # noqa: E402
from jaula.security.seccomp.compiler import ArgCondition, SyscallRule, assemble  # noqa: E402

REFUSED = 125
"""The exit status when the confinement is not possible."""
_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/run/systemd/resolve")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
_READ = FS.EXECUTE | FS.READ_FILE | FS.READ_DIR
_DEVICE_RIGHTS = FS.WRITE_FILE | FS.READ_FILE | FS.TRUNCATE | FS.IOCTL_DEV
_LIMITS = (
    (resource.RLIMIT_NOFILE, 1024),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_CPU, 1800),  # seconds
    (resource.RLIMIT_DATA, 2 << 30),  # bytes: private memory that is not that of a file
    (resource.RLIMIT_FSIZE, 16 << 30),  # bytes of one file, as of a pack
    (resource.RLIMIT_NPROC, 1024),  # of this user id in the user namespace
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
)

_CALLS = """
execve fork vfork wait4 waitid kill tkill setpgid getpgid getpgrp getsid setsid getppid getresuid
getresgid getgroups umask arch_prctl get_robust_list prlimit64 sysinfo alarm setitimer getitimer
pause rt_sigsuspend rt_sigtimedwait rt_sigpending rt_sigqueueinfo clock_getres getpriority
sched_getscheduler sched_getparam getcpu close_range pipe creat utime utimes futimesat futimes
fchmodat2 mknodat mlock munlock msync mincore readahead epoll_create eventfd splice tee
connect getsockname getpeername setsockopt getsockopt shutdown sendmmsg recvmmsg socketpair bind
_llseek ugetrlimit mmap2 statfs64 fstatfs64 stat64 lstat64 fcntl64 sendfile64
cacheflush riscv_flush_icache riscv_hwprobe
"""
_WRITE, _EXEC = 2, 4  # PROT_*, mmap(2)
_NAMESPACES = 0x7E020080  # CLONE_NEW*, namespaces(7)
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5451)  # TCGETS, FIONREAD, FIONBIO, FIOCLEX
_PR_SET_NAME = 15


def filter_program(*, unix: bool) -> bytes:
    """Return the filter: an allow-list, of the native architecture only."""
    allow = SyscallRule(SECCOMP_RET_ALLOW)
    names = sandbox_confinement.call_names(("files", "threads", *_CALLS.split()))
    rules = {name: [allow] for name in names}
    for name in ("mmap", "mprotect", "mmap2"):
        rules[name] = [
            _when((2, "SCMP_CMP_MASKED_EQ", _WRITE | _EXEC, kept)) for kept in (0, _WRITE, _EXEC)
        ]
    rules |= sandbox_confinement.socket_rules(unix=unix)
    rules["ioctl"] = [_when((1, "SCMP_CMP_EQ", number)) for number in _IOCTLS]
    rules["prctl"] = [_when((0, "SCMP_CMP_EQ", _PR_SET_NAME))]
    rules["clone"] = [_when((0, "SCMP_CMP_MASKED_EQ", _NAMESPACES, 0))]
    rules["clone3"] = [SyscallRule(SECCOMP_RET_ERRNO | errno.ENOSYS)]
    table = {
        number: found
        for name, found in rules.items()
        if (number := seccomp.resolve(name, NATIVE)) is not None
    }
    return assemble([(NATIVE, table)], SECCOMP_RET_ERRNO | errno.EPERM)


def _when(*conditions: tuple[int, str, int] | tuple[int, str, int, int]) -> SyscallRule:
    return SyscallRule(SECCOMP_RET_ALLOW, tuple(ArgCondition(*given) for given in conditions))


def enter(ids: tuple[int, int], directory: int, mount_point: str, *, unix: bool) -> None:
    """Enter the confinement, irreversibly, as the first process of a pid namespace.

    :raises OSError: if a system call fails.
    """
    program = seccomp.FilterProgram(filter_program(unix=unix))
    tree = mounts.clone_tree(".", dir_fd=directory)
    namespaces.unshare(CLONE.NEWNS | CLONE.NEWIPC)
    mounts.mount(None, "/", None, MS.REC | MS.PRIVATE)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    mounts.mount_setattr(root, set=MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID, recursive=True)
    mounts.mount_setattr(tree, set=MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV | MOUNT_ATTR.NOEXEC)
    mounts.move_mount(tree, mount_point)
    os.chdir(mount_point)
    process_calls.close_on_exec_from(3)
    sandbox_confinement.lower_limits(_LIMITS)
    os.umask(0o022)
    sandbox_confinement.set_ids(*ids)
    process_calls.prctl(
        process_calls.PR_SET_PDEATHSIG, signal.SIGKILL
    )  # the filter lets git not reset it
    process_calls.prctl(process_calls.PR_SET_NO_NEW_PRIVS, 1)
    _restrict_files(mount_point)
    seccomp.install(program)


def _restrict_files(mount_point: str) -> None:
    try:
        version = landlock.abi_version()
    except OSError:
        return  # without Landlock: ids, namespaces and filter still confine git
    supported = landlock.supported_rights(version)
    listen = supported.access_net & NET.BIND_TCP
    rules = landlock.create_ruleset(supported.access_fs, listen, supported.scoped)
    for path in _READABLE:
        _allow(rules, path, _READ & supported.access_fs)
    for path in _DEVICES:
        _allow(rules, path, _DEVICE_RIGHTS & supported.access_fs)
    _allow(rules, mount_point, supported.access_fs & ~FS.EXECUTE)
    landlock.restrict_self(rules)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        landlock.add_path_beneath(rules, fd, rights)
    finally:
        os.close(fd)


def main() -> None:
    """Run the command as process 1 of a pid namespace, and exit with its status."""
    command = sys.argv[2:]
    process_calls.die_with_parent(SETTINGS["engine"])
    try:
        namespaces.unshare(CLONE.NEWPID)
        child = os.fork()
        if child:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(status if status >= 0 else 128 - status)
        ids = tuple(SETTINGS["ids"])
        enter(ids, SETTINGS["directory"], SETTINGS["mount_point"], unix=SETTINGS["unix"])
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be confined: {error}\n")
    sys.stderr.flush()
    os._exit(REFUSED)


if __name__ == "__main__":
    main()
