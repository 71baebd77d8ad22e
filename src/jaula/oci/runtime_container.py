"""A container of ``jaula-runtime``: a directory of its own below the runtime's root.

    <root>/<id>/state.json    the fields of :class:`Record`; written atomically
    <root>/<id>/config.json   the spec from when the container was created
    <root>/<id>/start.sock    exists while init waits to be started; init listens on it
    <root>/<id>/notify/       of the notify socket, if the caller is a service

The lock is flock(2) on the directory: it is released when its holder exits, in whatever way. A
directory without a live creator and without a live process is a stopped container, however far the
creator came; ``delete`` removes it.

Reading a state needs neither msgspec, ctypes nor os: their imports take longer than all the rest.
"""

from __future__ import annotations

import errno
import fcntl
import posix

from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, Self

    from jaula.spec.runtime_spec import State

STATE, CONFIG, SOCKET = "state.json", "config.json", "start.sock"
ID_LENGTH = 255  # bytes, NAME_MAX
PF_FORKNOEXEC = 0x40  # include/linux/sched.h
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Record:
    """The stored fields of a container. Times are ticks since boot, as in proc_pid_stat(5)."""

    __slots__ = (
        "annotations",
        "bundle",
        "cgroup",
        "cgroup_paths",
        "created",
        "id",
        "oci_version",
        "owner",
        "pid",
        "rootfs",
        "rootless",
        "start_time",
        "systemd",
    )

    def __init__(self, **values: Any) -> None:
        self.id: str = values["id"]
        self.bundle: str = values["bundle"]
        self.rootfs: str = values.get("rootfs", "")
        self.oci_version: str = values.get("oci_version", "")
        self.annotations: dict[str, str] = values.get("annotations", {})
        self.created: str = values.get("created", "")
        self.owner: int = values.get("owner", 0)
        self.cgroup: str = values.get("cgroup", "")
        self.cgroup_paths: dict[str, str] = values.get("cgroup_paths", {})
        self.systemd: bool = values.get("systemd", False)
        self.rootless: bool = values.get("rootless", False)
        self.pid: int = values.get("pid", 0)
        self.start_time: int = values.get("start_time", 0)

    def document(self, status: str) -> dict[str, object]:
        """Return the state of runtime.md, with runc's additions."""
        return {
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "annotations": self.annotations,
        }

    def state(self, status: str) -> State:
        """Return the document that hooks and seccomp agents read, runtime.md "State"."""
        from jaula.spec.runtime_spec import State

        return State(self.id, status, self.bundle, self.pid, self.annotations, self.oci_version)

    def encode(self) -> bytes:
        """Return the record as JSON."""
        return fast_json.encode({name: getattr(self, name) for name in self.__slots__}).encode(
            "utf-8", "surrogateescape"
        )


def check_id(text: str) -> str:
    """Return a valid container id; it is also the name of a directory.

    :raises InvalidRequest: when the id is invalid.
    """
    if not text:
        raise InvalidRequest("a container id is missing")
    if text in (".", "..") or not _ID_CHARACTERS.issuperset(text):
        raise InvalidRequest(
            f"invalid container ID format: {text[:64]!r}",
            hint="letters, digits and any of _ + - . are allowed, but not . or .. alone",
        )
    if len(text) > ID_LENGTH:
        raise InvalidRequest(f"a container ID of {len(text)} bytes is longer than {ID_LENGTH}")
    return text


class Container:
    """An open container directory; close it, or use ``with``."""

    def __init__(self, root: str, container_id: str, fd: int) -> None:
        self.root = root
        self.id = container_id
        self.fd = fd
        self.path = f"{root}/{container_id}"

    @classmethod
    def create(cls, root: str, container_id: str) -> Self:
        """Create a directory and lock it.

        :raises Conflict: when the id is in use.
        """
        check_id(container_id)
        import os

        os.makedirs(root, 0o700, exist_ok=True)
        path = f"{root}/{container_id}"
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            raise Conflict(f"container with given ID already exists: {container_id}") from None
        container = cls._open(root, container_id)
        container.lock()
        return container

    @classmethod
    def open(cls, root: str, container_id: str) -> Self:
        """Open an existing directory.

        :raises NotFound: when the container does not exist.
        """
        return cls._open(root, check_id(container_id))

    @classmethod
    def _open(cls, root: str, container_id: str) -> Self:
        try:
            fd = posix.open(
                f"{root}/{container_id}",
                posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"container {container_id} does not exist") from None
        return cls(root, container_id, fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self.fd)

    def lock(self, *, wait_for_create: bool = True) -> None:
        """Wait for the lock, which every command takes that changes the container.

        Without ``wait_for_create`` it does not wait for a container that is being created, which
        may take as long as its hooks.

        :raises NotFound: when the container was deleted meanwhile.
        :raises Conflict: when the container is being created, without ``wait_for_create``.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait_for_create and not self.record().pid:
                raise Conflict(f"container {self.id} is still being created") from None
            fcntl.flock(self.fd, fcntl.LOCK_EX)
        if posix.fstat(self.fd).st_nlink == 0:
            raise NotFound(f"container {self.id} does not exist")

    def unlock(self) -> None:
        """Release the lock."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def locked(self) -> bool:
        """Return whether another process holds the lock."""
        probe = posix.open(".", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=self.fd)
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            posix.close(probe)
        return False

    # files

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically."""
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
        fd = posix.open(f"{name}.new", flags, 0o600, dir_fd=self.fd)
        try:
            left = memoryview(data)
            while left:  # a full file system takes a part, and fails the next time
                left = left[posix.write(fd, left) :]
        finally:
            posix.close(fd)
        posix.rename(f"{name}.new", name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        :raises FileNotFoundError: when it does not exist.
        """
        fd = posix.open(name, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW, dir_fd=self.fd)
        with open(fd, "rb") as file:
            return file.read()

    def record(self) -> Record:
        """Return the record; nearly empty if the creator was killed early.

        :raises CorruptState: when the file is damaged.
        """
        try:
            return Record(**fast_json.decode(self.read(STATE)))
        except FileNotFoundError:
            return Record(id=self.id, bundle="")
        except (ValueError, TypeError, KeyError):
            raise CorruptState(
                f"container {self.id}: {self.path}/{STATE} is damaged",
                hint="delete --force removes it",
            ) from None

    def remove(self) -> None:
        """Remove the directory and everything in it."""
        for name in posix.listdir(self.fd):
            try:
                posix.unlink(name, dir_fd=self.fd)
            except IsADirectoryError:  # that of the notify socket
                import shutil

                shutil.rmtree(name, dir_fd=self.fd)
        posix.rmdir(self.path)

    # the socket

    def socket_address(self) -> str:
        """Return the socket's address by descriptor, since an address has only 108 bytes."""
        return f"/proc/self/fd/{self.fd}/{SOCKET}"

    def listen(self) -> _socket.socket:
        """Return the socket on which init waits to be started."""
        import _socket

        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        listener.bind(self.socket_address())
        listener.listen(1)
        return listener

    def connect(self) -> _socket.socket | None:
        """Connect to an init that waits to be started; return None if none does."""
        try:
            posix.stat(SOCKET, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        import _socket  # 0.3 ms, which a started container does not need

        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            sock.connect(self.socket_address())
        except OSError as error:
            sock.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return None
            raise
        return sock

    # status

    def status(self, record: Record) -> str:
        """Return creating, created, running, paused or stopped, read from the kernel."""
        if not record.pid:
            return "creating" if self.locked() else "stopped"
        if not alive(record):
            return "stopped"
        probe = self.connect()
        if probe is not None:
            probe.close()
            return "created"
        return "paused" if frozen(record) else "running"


def alive(record: Record) -> bool:
    """Return whether the created process still exists and is not a zombie."""
    state, start_time = process_facts(record.pid)
    return state not in ("", "Z", "X") and start_time == record.start_time


def open_process(record: Record) -> int | None:
    """Return a pidfd of init; None if it has exited.

    Its pid may still be in use as that of a session or process group, and no other process can have
    it then. Linux before 6.15 returns EINVAL in this case, as for the id of a thread.
    """
    if not record.pid:
        return None
    try:
        pidfd = posix.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
    if alive(record):  # checked after the pidfd is open, so both are the same process
        return pidfd
    posix.close(pidfd)
    return None


def process_facts(pid: int) -> tuple[str, int]:
    """Return (state letter, start time) of a process; see proc_pid_stat(5).

    Return ("", 0) if it does not exist.
    """
    fields = _stat_fields(pid)
    return (fields[0].decode(), int(fields[19])) if fields else ("", 0)


def executed(record: Record) -> bool:
    """Return whether init has executed a program (:func:`jaula.kernel.process_calls.executed`)."""
    fields = _stat_fields(record.pid)
    if not fields or int(fields[19]) != record.start_time:
        return True
    return not int(fields[6]) & PF_FORKNOEXEC


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) after the name; none if there is no process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def frozen(record: Record) -> bool:
    """Return whether the container's cgroup is frozen."""
    paths = record.cgroup_paths
    for path, frozen_text in (
        (f"{paths.get('freezer', '')}/freezer.state", b"FROZEN"),
        (f"{next(iter(paths.values()), '')}/cgroup.events", b"frozen 1"),
    ):
        try:
            with open(path, "rb") as file:
                return frozen_text in file.read()
        except OSError:
            continue
    return False
