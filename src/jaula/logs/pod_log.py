"""The log file of a container of a Kubernetes pod, below the directory of the pod's logs.

Source: Kubernetes CRI, ``PodSandboxConfig.log_directory`` and ``ContainerConfig.log_path``. The
kubelet rotates the file: it renames it and asks for it to be opened again (``ReopenContainerLog``).

A container of the pod may write to the directory, if the host's /var/log is mounted in it. So no
symbolic link is followed below the directory, and the file must be a regular file without another
name: a hard link could be a file of the host. It is opened without waiting, because a fifo without
a reader would block the container.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel import openat2
from jaula.kernel.openat2 import RESOLVE

_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o755
_BENEATH = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
_NO_WAIT = os.O_NONBLOCK | os.O_NOCTTY


class PodLog(msgspec.Struct, frozen=True):
    """The absolute directory of a pod's logs, and the relative path of one container's file."""

    directory: str
    path: str

    @property
    def name(self) -> str:
        """The absolute path of the file, for messages and for inotify(7)."""
        return f"{self.directory.rstrip('/')}/{self.path}"

    def check(self) -> None:
        """Check both paths.

        :raises InvalidRequest: when ``directory`` is not absolute, or ``path`` is not a normal
            relative path of a file.
        """
        if not self.directory.startswith("/") or "\0" in self.directory:
            raise InvalidRequest(
                f"log directory {self.directory[:200]!r} is not an absolute path",
                hint="the directory of the pod's logs, as /var/log/pods/NAMESPACE_NAME_UID",
            )
        if "\0" in self.path or any(p in ("", ".", "..") for p in self.path.split("/")):
            raise InvalidRequest(
                f"log path {self.path[:200]!r} is not below the directory of the pod's logs",
                hint="a relative path without '..', as NAME/0.log",
            )

    def open_to_append(self) -> int:
        """Open the file to read and append, create it and missing directories below the pod's.

        :raises OSError: when that is not possible, or the file is not a regular file with one name.
        """
        flags = os.O_RDWR | os.O_APPEND | _NO_WAIT
        try:
            parent, name = self._open_parent(create=True)
            try:
                try:
                    new = flags | os.O_CREAT | os.O_EXCL
                    descriptor = openat2.openat2(parent, name, new, _FILE_MODE, _BENEATH)
                    os.fchmod(descriptor, _FILE_MODE)  # independent of the umask
                except FileExistsError:
                    descriptor = openat2.openat2(parent, name, flags, 0, _BENEATH)
            finally:
                os.close(parent)
            return _checked(descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error

    def open_to_read(self) -> int | None:
        """Open the file, or return None if it does not exist.

        :raises OSError: when it cannot be opened, or is not a regular file with one name.
        """
        try:
            parent, name = self._open_parent(create=False)
            try:
                descriptor = openat2.openat2(parent, name, os.O_RDONLY | _NO_WAIT, 0, _BENEATH)
            finally:
                os.close(parent)
            return _checked(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error

    def _open_parent(self, *, create: bool) -> tuple[int, str]:
        """Open the directory of the file; return it with the name of the file in it."""
        *directories, base = self.path.split("/")
        flags = os.O_PATH | os.O_DIRECTORY
        start = self.directory.rstrip("/") or "/"
        current = os.open(start, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in directories:
                try:
                    below = openat2.openat2(current, name, flags, 0, _BENEATH)
                except FileNotFoundError:
                    if not create:
                        raise
                    below = _make_directory(current, name)
                os.close(current)
                current = below
        except BaseException:
            os.close(current)
            raise
        return current, base


def _make_directory(parent: int, name: str) -> int:
    """Create a directory, which another process may do at the same time, and open it."""
    made = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
        made = True
    descriptor = openat2.openat2(parent, name, os.O_PATH | os.O_DIRECTORY, 0, _BENEATH)
    if made:
        os.chmod(f"/proc/self/fd/{descriptor}", _DIRECTORY_MODE)  # independent of the umask
    return descriptor


def _checked(descriptor: int) -> int:
    """Return the descriptor of a regular file with one name; close another one.

    :raises OSError: when it is not such a file.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EMLINK, "the file has another name (a hard link)")
    raise OSError(errno.EINVAL, "not a regular file")
