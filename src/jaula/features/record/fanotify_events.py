"""Fanotify events of the files of one container: its root file system and its other mounts.

Each event has a descriptor of the file itself, opened by the kernel, so no path has to be resolved.
Marks are made through descriptors that are opened below the container's root and never leave it.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator

from jaula.errors import Conflict, JaulaError, NotAuthorized, Unsupported
from jaula.kernel import fanotify, mountinfo
from jaula.kernel.fanotify import Event
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.openat2 import RESOLVE, openat2

NAME = "fanotify"
_MAX_MOUNTS = 1024
_MAX_MOUNTINFO = 4 << 20  # bytes
_MAX_READS = 64  # of one call of `read`, so that a flood does not hold the caller
_PSEUDO = frozenset(
    {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "bpf", "debugfs",
     "tracefs", "nsfs", "selinuxfs", "configfs", "pstore", "fusectl", "binfmt_misc"}
)  # fmt: skip
_WITHIN = RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS


class FanotifyGroup:
    """A group that reports ``mask`` for the mounts of a container, also for later ones.

    ``overflows`` counts how often the queue was full. A mount that is made and used at once, or in
    a mount namespace that a process of the container creates, is not marked.
    """

    def __init__(self, pid: int, mask: int, *, executable: bool) -> None:
        """Mark the mounts of the process ``pid``, which runs in the container.

        ``executable``: only mounts from which programs can be executed.

        :raises Unsupported: when the kernel has no fanotify.
        :raises NotAuthorized: without CAP_SYS_ADMIN of the host.
        :raises Conflict: when the process has exited.
        """
        self.overflows = 0
        self.drained = False  # the last call of `read` has emptied the queue
        self.unmarked: set[str] = set()  # mount points that could not be marked
        self._mask = mask
        self._executable = executable
        self._marked: set[int] = set()
        try:
            self._group = fanotify.create()
        except PermissionError:
            raise NotAuthorized(
                "fanotify needs CAP_SYS_ADMIN of the host", hint="run the command with sudo"
            ) from None
        except OSError as error:
            raise Unsupported(f"this kernel has no fanotify: {error.strerror}") from error
        self._root = self._mounts = -1
        try:
            self._mounts = mountinfo.open_fd(f"/proc/{pid}/mountinfo")
            self._root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.mark()
        except (FileNotFoundError, ProcessLookupError):
            self.close()
            raise Conflict("the container has exited") from None
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable while events wait."""
        return self._group

    def mounts_fileno(self) -> int:
        """Return the descriptor that has POLLPRI when the mounts have changed."""
        return self._mounts

    def mounts_changed(self) -> bool:
        """Return whether the mounts have changed since the last call."""
        poller = select.poll()
        poller.register(self._mounts, select.POLLPRI)
        return any(mask & select.POLLPRI for _, mask in poller.poll(0))

    def mark(self) -> None:
        """Mark the mounts that are not marked yet.

        :raises JaulaError: when the root of the container cannot be marked.
        """
        try:
            text = os.pread(self._mounts, _MAX_MOUNTINFO, 0)
            while more := os.pread(self._mounts, _MAX_MOUNTINFO, len(text)):
                text += more
                if len(text) > _MAX_MOUNTINFO:
                    break
        except OSError:
            return  # the process has exited
        lines = text.decode("utf-8", "surrogateescape").rpartition("\n")[0]
        mounts = mountinfo.parse(lines)
        present = {mount.mount_id for mount in mounts}
        self._marked &= present
        for mount in mounts:
            if len(self._marked) >= _MAX_MOUNTS:
                self.unmarked.add(mount.target)
            elif mount.mount_id not in self._marked and self._is_of_interest(mount):
                self._mark(mount)

    def _is_of_interest(self, mount: MountInfo) -> bool:
        return mount.target == "/" or not (
            mount.fstype in _PSEUDO or (self._executable and "noexec" in mount.options)
        )

    def _mark(self, mount: MountInfo) -> None:
        try:
            if mount.target == "/":
                fd = os.dup(self._root)
            else:
                fd = _open(self._root, mount)
                if fd < 0:
                    return
        except OSError:
            self.unmarked.add(mount.target)  # another mount hides it, or it has gone
            return
        try:
            whole = mount.target == "/" and mount.fstype == "overlay"  # of this container alone
            fanotify.mark(self._group, fd, self._mask, filesystem=whole)
            self._marked.add(mount.mount_id)
            self.unmarked.discard(mount.target)
        except OSError as error:
            if mount.target == "/":
                raise JaulaError(
                    f"the container's root cannot be marked: {error.strerror}"
                ) from error
            self.unmarked.add(mount.target)
        finally:
            os.close(fd)

    def read(self) -> Iterator[Event]:
        """Yield waiting events. The caller closes each one.

        :raises JaulaError: when events cannot be read.
        """
        self.drained = False
        for _ in range(_MAX_READS):
            try:
                events = fanotify.read(self._group)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPERM,
                                   errno.ETXTBSY, errno.ENXIO, errno.ESTALE):  # fmt: skip
                    self.overflows += 1  # of this one event the file could not be opened
                    continue
                raise JaulaError(f"events of fanotify cannot be read: {error.strerror}") from error
            if not events:
                self.drained = True
                return
            for event in events:
                if event.mask & fanotify.FAN_Q_OVERFLOW:
                    self.overflows += 1
                    event.close()
                else:
                    yield event

    def close(self) -> None:
        """Remove the marks."""
        for fd in (self._group, self._root, self._mounts):
            if fd >= 0:
                os.close(fd)
        self._group = self._root = self._mounts = -1


def _open(root: int, mount: MountInfo) -> int:
    """Return a descriptor of a mount point below ``root``, or -1 if it is a device, FIFO or socket.

    :raises OSError: when the path is another mount by now.
    """
    path = openat2(root, mount.target, os.O_PATH | os.O_NOFOLLOW, resolve=_WITHIN)
    try:
        if mount_id(path) != mount.mount_id:
            raise OSError(errno.ESTALE, f"{mount.target} is another mount")
        mode = os.fstat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return -1
        return os.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(path)


def mount_id(fd: int) -> int:
    """Return the id of the mount that a descriptor is on."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.removeprefix("mnt_id:"))
    raise OSError(errno.ENOENT, "no mnt_id")


def path_of(fd: int) -> bytes:
    """Return the path of an open file in its mount namespace, as the kernel has it.

    A file without a name has its last name.
    """
    path = os.readlink(f"/proc/self/fd/{fd}".encode())
    return path.removesuffix(b" (deleted)") if os.fstat(fd).st_nlink == 0 else path
