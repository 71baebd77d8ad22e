"""Open files of every process that refer outside the container (statement I1).

Evidence: the links in /proc/<pid>/fd, the mount ids and pids in fdinfo, and the network namespace
of each socket, of which pidfd_getfd(2) returns a copy. Files that a program opened cannot be
distinguished from inherited ones, so each target counts: a path on a mount outside the container's
table, a namespace, a process outside or a socket of another network namespace allows an escape.
Pipes, unix sockets, the null device and terminals on 0 to 2 connect the program with the engine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import READ_LIMIT, AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.process_calls import fd_name, pidfd_getfd, pidfd_open

MAX_FILES = 100_000
SIOCGSKNS = 0x894C  # linux/sockios.h: a descriptor of the socket's network namespace
NULL = (1, 3)  # major, minor
TERMINALS = range(136, 144)  # majors of pseudoterminals (Documentation/admin-guide/devices.txt)


INFO = CheckInfo(
    id="descriptors",
    layer="descriptors",
    title="Open files",
    reason="A descriptor that refers outside allows an escape that no mount table shows.",
    references=("I1", "CVE-2024-21626", "CVE-2016-9962"),
    evidence="/proc/<pid>/fd, fdinfo, ioctl SIOCGSKNS",
    advice="restart it, and report it: the runtime passes only descriptors 0 to 2",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row for the files of every process."""
    pids = {process.pid for process in container.members} | {container.pid}
    outside, count = [], 0
    for pid in sorted(pids):
        label = "" if pid == container.pid else f"process {pid}: "
        try:
            mount_ids = {mount.mount_id for mount in _mounts(container, pid)}
            for number, target in _outside(container, pid, mount_ids, pids):
                count += 1
                if count > MAX_FILES:
                    raise ValueError(f"more than {MAX_FILES} open files in the container")
                if target:
                    outside.append(f"{label}{number} -> {target}")
        except (FileNotFoundError, ProcessLookupError):
            if pid == container.pid:
                raise  # the container has exited
    effective = f"{count} open" + (
        f"; outside: {', '.join(outside)}" if outside else ", none outside"
    )
    evidence = f"{container.proc_root}/*/fd, fdinfo, SIOCGSKNS"
    yield Result("descriptors", "descriptors", "none leads outside", effective, evidence,
                 verdict_of(not outside, None))  # fmt: skip


def _mounts(container: AuditedContainer, pid: int) -> tuple[MountInfo, ...]:
    """Return the mounts of a process, which may have a mount namespace of its own."""
    process = container.snapshot.processes.get(pid)
    if process is None or process.namespaces["mnt"] == container.namespaces["mnt"]:
        return container.mounts
    if process.namespaces["mnt"] == container.reader_namespaces["mnt"]:
        return ()  # the host's
    return mountinfo.read(f"{container.proc_root}/{pid}/mountinfo", limit=READ_LIMIT)


LONG_PATH = "/(a path longer than a page)"
"""The name of a file that the kernel does not tell."""


def _outside(
    container: AuditedContainer, pid: int, mount_ids: set[int], pids: set[int]
) -> Iterator[tuple[int, str]]:
    """Yield the number of each open file, and its target if that is outside, else ''."""
    directory = f"{container.proc_root}/{pid}"
    for number in sorted(map(int, os.listdir(f"{directory}/fd"))):
        try:
            target = fd_name(pid, number, container.proc_root) or LONG_PATH
            with open(f"{directory}/fdinfo/{number}", encoding="ascii", errors="replace") as file:
                info = file.read()
            status = os.stat(f"{directory}/fd/{number}")
        except FileNotFoundError:  # it has been closed
            continue
        is_outside = False
        if stat.S_ISSOCK(status.st_mode):
            is_outside = _is_foreign_socket(container, pid, number)
        elif target == "anon_inode:[pidfd]" or target.startswith("pidfd:"):
            is_outside = info_value(info, "Pid") not in pids | {-1}
        elif not stat.S_ISFIFO(status.st_mode):  # under SELinux a pipe may be named
            known = info_value(info, "mnt_id") in mount_ids
            is_outside = leads_out(number, target, known, _device(status))
        yield number, target if is_outside else ""


def _is_foreign_socket(container: AuditedContainer, pid: int, number: int) -> bool:
    """Return whether a socket belongs to another network namespace than the process.

    A unix socket on descriptors 0 to 2 connects the program with the engine.
    """
    pidfd = pidfd_open(pid)
    try:
        copy = socket.socket(fileno=pidfd_getfd(pidfd, number))
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ESRCH):
            return False  # it has been closed
        raise
    finally:
        os.close(pidfd)
    with copy:
        if number <= 2 and copy.family == socket.AF_UNIX:
            return False
        try:
            namespace = fcntl.ioctl(copy, SIOCGSKNS)
        except PermissionError:  # it belongs to a user namespace above the reader's
            return True
    try:
        inode = os.fstat(namespace).st_ino
    finally:
        os.close(namespace)
    return f"net:[{inode}]" != container.namespaces["net"]


def leads_out(
    number: int, target: str, mount_known: bool, device: tuple[int, int] | None = None
) -> bool:
    """Return whether an open file refers outside the container.

    ``device`` is (major, minor) of a character device, else None. The null device and terminals are
    recognised by number: on a mount that the reader does not have, the kernel shows only the rest
    of the path.
    """
    if target.startswith("/"):
        if mount_known or target.startswith("/memfd:"):
            return False
        harmless = device is not None and (device == NULL or device[0] in TERMINALS)
        return not (number <= 2 and harmless)
    kind = target.partition(":")[0]
    return kind in ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time")


def _device(status: os.stat_result) -> tuple[int, int] | None:
    if not stat.S_ISCHR(status.st_mode):
        return None
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def info_value(text: str, key: str) -> int:
    """Return a number of /proc/<pid>/fdinfo, or -1 if absent. Pure."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value)
    return -1
