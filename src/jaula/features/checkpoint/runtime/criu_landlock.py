"""Enter a container's Landlock domain in CRIU's first task, before it forks all others.

CRIU does not save domains, and processes in a domain cannot mount. In CRIU's notification
``post-setup-namespaces`` the mounts exist, the first task of the container is alone, has all
capabilities of its user namespace and no filter, and waits. All other tasks are its children. So
the domain that it enters there is the one of the whole container, as at a start.

The task gets the ruleset from the helper by an abstract unix socket of its own network namespace:
it makes the system calls for that where it waits (:class:`jaula.kernel.ptrace.RemoteCalls`).

Facts: CRIU has made the mounts below a directory of its own, each at a place that its id names, and
composes the container's tree later. Where it cannot copy sharing groups (MOVE_MOUNT_SET_GROUP:
before Linux 5.15, and in a joined user namespace), the tree is composed there already. So the path
of a rule is opened in the mount that will hold it. A symbolic link that leads into another mount is
followed in its own: the rule marks a covered file then, and grants less.

CRIU opens further files later, by descriptors that it has: its image directory and its own /proc.
Each gets a rule, which gives the container nothing, since it can reach neither. The image directory
is removed after the restore.
"""

from __future__ import annotations

import _socket
import errno
import os
import re
import secrets
import stat
import struct
from collections.abc import Mapping

from jaula.errors import RuntimeFailure
from jaula.kernel import landlock, mountinfo, mounts
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.netlink import in_netns
from jaula.kernel.ptrace import RemoteCalls
from jaula.runtime import seqpacket
from jaula.runtime.init import enter_landlock
from jaula.runtime.init.enter_landlock import CompiledLandlock

NR_close, NR_mount = 3, 165
NR_socket, NR_connect, NR_recvmsg = 41, 42, 47
_OWN_RIGHTS = int(FS.READ_FILE | FS.WRITE_FILE | FS.READ_DIR)  # on CRIU's own directories
_YARD = "/.criu.mntns."  # in the name of the directory in which CRIU makes mounts
_COMPOSED = re.compile(r"/[0-9]+-0{10}")  # below it, the tree of a mount namespace


def enter(pid: int, rules: CompiledLandlock, netns: int, mount_ids: Mapping[str, int]) -> None:
    """Make process ``pid`` enter a domain.

    ``mount_ids`` are the ids of the container's mounts in the images, by mount point.

    :raises RuntimeFailure: when it could not, or the domain has no effect.
    """
    try:
        made = _Mounts(pid, mount_ids)
        ruleset = enter_landlock.open_rules(rules, made.open, ())
        try:
            if rules.handled_access_fs:
                made.allow(ruleset, rules)
                _allow_own_files(pid, ruleset, rules.handled_access_fs)
            _enter(pid, ruleset, rules, netns)
        finally:
            os.close(ruleset)
    except OSError as error:
        raise RuntimeFailure(f"landlock: {error}") from error


class _Mounts:
    """The mounts of the container, as CRIU has made them for its first task."""

    def __init__(self, pid: int, mount_ids: Mapping[str, int]) -> None:
        made = [each.target for each in mountinfo.read(f"/proc/{pid}/mountinfo")]
        yards = [path for path in made if _YARD in path and "/" not in path.partition(_YARD)[2]]
        if len(yards) != 1:
            raise RuntimeFailure(
                "landlock: the mounts of the container are not where CRIU makes them"
            )
        composed = [path for path in made if _COMPOSED.fullmatch(path.removeprefix(yards[0]))]
        places = {
            target: f"{composed[0]}/{target}".rstrip("/").replace("//", "/")
            if composed
            else f"{yards[0]}/mnt-{number:010d}"
            for target, number in mount_ids.items()
        }
        self._paths = {
            target: f"/proc/{pid}/root{place}" for target, place in places.items() if place in made
        }
        if "/" not in self._paths:
            raise RuntimeFailure("landlock: the root is not where CRIU makes mounts")

    def allow(self, ruleset: int, rules: CompiledLandlock) -> None:
        """Give each mount the rights that it has in the container's tree.

        Until CRIU composes that tree, the walk from a file of the mount does not meet the rules of
        the directories above its mount point.
        """
        for target, path in self._paths.items():
            rights = 0
            for above, access, _ in rules.paths:
                if _covers(os.path.normpath(os.fsdecode(above)), target):
                    rights |= access
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    rights &= enter_landlock.FILE_RIGHTS
                if rights:
                    landlock.add_path_beneath(ruleset, fd, rights)
            finally:
                os.close(fd)

    def open(self, path: bytes) -> int | None:
        """Open a path of the container."""
        text = os.path.normpath(os.fsdecode(path))
        above = [each for each in self._paths if _covers(each, text)]
        target = max(above, key=len)
        flags = os.O_PATH | os.O_CLOEXEC
        rest = text[len(target) :].strip("/") if target != "/" else text.strip("/")
        if not rest:
            return os.open(self._paths[target], flags)
        directory = os.open(self._paths[target], flags)
        try:
            return enter_landlock.open_below(directory, os.fsencode(rest))
        finally:
            os.close(directory)


def _covers(mount_point: str, path: str) -> bool:
    return mount_point == "/" or path == mount_point or path.startswith(f"{mount_point}/")


def _allow_own_files(pid: int, ruleset: int, handled: int) -> None:
    """Allow what is below the directories that CRIU has open, and its working directory."""
    opened = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    for path in (*opened, f"/proc/{pid}/cwd"):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                continue
            raise
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                landlock.add_path_beneath(ruleset, fd, handled & _OWN_RIGHTS)
        except OSError as error:
            if error.errno != errno.EBADFD:  # a file system without paths
                raise
        finally:
            os.close(fd)


def _enter(pid: int, ruleset: int, rules: CompiledLandlock, netns: int) -> None:
    address = b"\0jaula-" + secrets.token_hex(16).encode()
    with in_netns(netns):
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        server.bind(address)
        server.listen(1)
        with RemoteCalls(pid) as task:
            sock = task.call("socket", NR_socket, _socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
            name = struct.pack("=H", _socket.AF_UNIX) + address
            task.call("connect", NR_connect, sock, task.write(0, name), len(name))
            fd, _ = server._accept()  # type: ignore[attr-defined]  # of _socket
            with _socket_of(fd) as ours:
                seqpacket.send(ours, b"r", (ruleset,))
                received = _receive(task, sock)
            try:
                task.call(
                    "landlock_restrict_self",
                    landlock.NR_landlock_restrict_self,
                    received,
                    rules.flags,
                )
            finally:
                task.call("close", NR_close, received)
                task.call("close", NR_close, sock)
            _prove(task, rules)
    finally:
        server.close()


class _socket_of:
    """A connected socket that is closed at the end."""

    def __init__(self, fd: int) -> None:
        self._sock = _socket.socket(fileno=fd)

    def __enter__(self) -> _socket.socket:
        return self._sock

    def __exit__(self, *_: object) -> None:
        self._sock.close()


def _receive(task: RemoteCalls, sock: int) -> int:
    """Receive one descriptor in the task: struct msghdr of recvmsg(2)."""
    base = 256
    data, control = task.scratch + base, task.scratch + base + 64
    vector = task.write(base + 16, struct.pack("=QQ", data, 1))
    task.write(base + 64, bytes(64))
    header = struct.pack("=QIiQQQQii", 0, 0, 0, vector, 1, control, 64, 0, 0)
    task.call("recvmsg", NR_recvmsg, sock, task.write(base + 160, header), 0)
    length, level, kind, fd = struct.unpack("=Qiii", task.read(base + 64, 20))
    if (length, level, kind) != (20, _socket.SOL_SOCKET, _socket.SCM_RIGHTS):
        raise OSError(errno.EPROTO, "landlock: the ruleset has not arrived")
    return int(fd)


def _prove(task: RemoteCalls, rules: CompiledLandlock) -> None:
    """Check the effect: in a domain mount(2) fails with EPERM before its arguments are checked."""
    if not rules.handled_access_fs:
        return
    root = task.write(0, b"/\0")
    try:
        task.call("mount", NR_mount, 0, root, 0, int(mounts.MS.MOVE), 0)
    except OSError as error:
        if error.errno == errno.EPERM:
            return
    raise RuntimeFailure("landlock: the domain was entered but is not enforced")
