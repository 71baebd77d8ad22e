"""CheckpointContainer of CRI: an archive with the checkpoint of a running container.

The archive appears under its name when it is complete, with mode 0600, and never replaces a file.
An engine that is killed meanwhile leaves nothing at the location, if its file system has O_TMPFILE.
"""

from __future__ import annotations

import errno
import os
import posixpath
import secrets
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from jaula.engine.threads import in_own_thread
from jaula.errors import Conflict, InvalidRequest, JaulaError, resource_error
from jaula.features.checkpoint import checkpoint_archive
from jaula.storage import free_space

if TYPE_CHECKING:
    from jaula.config import Paths
    from jaula.engine.model.container import Container
    from jaula.features.checkpoint.checkpoint_store import Manifest
    from jaula.features.checkpoint.checkpoints import Checkpoints

_PATH_LIMIT = 4096  # bytes
_CHECK = 64 << 20  # bytes that are written between two checks of the free space


async def write_checkpoint(
    checkpoints: Checkpoints, container: Container, location: str, paths: Paths, log: str
) -> None:
    """Write the archive of a container's checkpoint at a path of the host. The container runs on.

    ``log`` is the path of the container's log, which the archive has too; '' for none.

    :raises InvalidRequest: when the location is not valid.
    :raises Conflict: when it exists, or the container does not run.
    :raises RuntimeFailure: when CRIU refuses.
    :raises Unavailable: when a disk is full.
    """
    target = Location(location, paths)
    try:
        async with checkpoints.take(container) as (directory, manifest):
            writing = in_own_thread(lambda: target.write(directory, manifest, _read_log(log)))
            try:
                await writing
            finally:
                target.stopped.set()  # the thread ends soon if this task is cancelled
    finally:
        target.close()


class Location:
    """The directory and the name of a new file."""

    def __init__(self, path: str, paths: Paths) -> None:
        _check(path)
        self._path = path
        directory, self._name = posixpath.split(path)
        try:
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidRequest(
                f"the directory of the location {path[:200]!r}: {error.strerror}",
                hint="create the directory first",
            ) from None
        self.stopped = threading.Event()
        try:
            self._check_directory(paths)
            if _exists(self._directory, self._name):
                raise self._taken()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the directory."""
        os.close(self._directory)

    def _check_directory(self, paths: Paths) -> None:
        real = Path(os.readlink(f"/proc/self/fd/{self._directory}"))
        for own in (paths.root, paths.run):
            if real.is_relative_to(own.resolve()):
                raise InvalidRequest(
                    f"the location {self._path[:200]!r} is in a directory of the engine",
                    hint="choose another directory",
                )

    def _taken(self) -> Conflict:
        return Conflict(
            f"the location {self._path[:200]!r} exists", hint="choose the name of a new file"
        )

    def write(self, checkpoint: Path, manifest: Manifest, log: bytes) -> None:
        """Write the archive. Call it in a thread."""
        directory, temporary = os.dup(self._directory), ""
        try:
            fd, temporary = _new_file(directory, self._name)
            with open(fd, "wb") as file:
                checkpoint_archive.write(checkpoint, manifest, _Sink(fd, self.stopped), log=log)
                os.fsync(fd)
                source = temporary or f"/proc/self/fd/{file.fileno()}"
                os.link(
                    source,
                    self._name,
                    src_dir_fd=directory if temporary else None,
                    dst_dir_fd=directory,
                    follow_symlinks=not temporary,
                )
            os.fsync(directory)
        except FileExistsError:
            raise self._taken() from None
        except OSError as error:
            what = f"cannot write the checkpoint to {self._path[:200]!r}"
            raise resource_error(error, what) or JaulaError(f"{what}: {error.strerror}") from error
        finally:
            if temporary:
                os.unlink(temporary, dir_fd=directory)
            os.close(directory)


def _check(path: str) -> None:
    """Check the text of a location. Pure.

    :raises InvalidRequest: when it is not the plain absolute path of a file.
    """
    if (
        not path.startswith("/")
        or "\0" in path
        or posixpath.normpath(path) != path
        or path == "/"
        or len(os.fsencode(path)) > _PATH_LIMIT
    ):
        raise InvalidRequest(
            f"the location {path[:200]!r} is not the absolute path of a file, without '.' and '..'"
        )


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidRequest(f"the location's name {name[:200]!r}: {error.strerror}") from None
    return True


def _new_file(directory: int, name: str) -> tuple[int, str]:
    """Return the descriptor of a new file, and its temporary name; '' if it has none."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory), ""
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    temporary = f".{name[:100]}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(temporary, flags, 0o600, dir_fd=directory), temporary


class _Sink:
    """Writes to a file until ``stopped`` is set."""

    def __init__(self, fd: int, stopped: threading.Event) -> None:
        self._fd = fd
        self._stopped = stopped
        self._unchecked = 0

    def __call__(self, data: bytes | memoryview) -> None:
        if self._stopped.is_set():
            raise JaulaError("the request has ended")
        self._unchecked -= len(data)
        if self._unchecked < 0:
            free_space.check(self._fd, _CHECK)
            self._unchecked = _CHECK
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def _read_log(path: str) -> bytes:
    """Return the end of a log, at most as much as an archive may have of it."""
    if not path:
        return b""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError:  # rotated or removed by the kubelet; the checkpoint is complete without it
        return b""
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return b""
        file.seek(max(0, status.st_size - checkpoint_archive.MAX_LOG))
        return file.read(checkpoint_archive.MAX_LOG)
