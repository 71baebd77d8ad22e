"""Write cached data to the disk: syncfs(2), fsync(2) of files and directories.

The library is loaded as a ``CDLL``, which releases the interpreter lock: these calls wait for a
disk.

Facts about syncfs: it returns after all data and metadata of the file system that were written
before the call are on the disk, those of other processes included. Since Linux 5.8 it reports an
error of an earlier writeback.

Facts about rename(2): after a power failure the new name may be there without the content, since a
file system may write the directory first. So the content is written before the rename, and the
directory after it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from jaula.kernel.libc import errno_error

_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write all cached data of the file system of ``fd`` to the disk."""
    if _libc.syncfs(ctypes.c_int(fd)) == -1:
        raise errno_error("syncfs")


def sync_file_systems(*directories: Path) -> None:
    """Write everything on the file systems of ``directories`` to the disk, each once."""
    synced = set()
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            device = os.fstat(descriptor).st_dev
            if device not in synced:
                synced.add(device)
                syncfs(descriptor)
        finally:
            os.close(descriptor)


def fsync_paths(*paths: str | Path, dir_fd: int | None = None) -> None:
    """Write files and the entries of directories to the disk, one after the other.

    Relative paths are below ``dir_fd``. Symbolic links are not followed.
    """
    for path in paths:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, dir_fd=dir_fd)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_durable(path: str | Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file: after a power failure it is the former one or the new one, whole.

    When this returns, it is the new one. ``mode`` does not depend on the umask.

    :raises OSError: when it cannot be written; the former one is kept then.
    """
    directory, name = os.path.split(path)
    # tempfile would do this too, but loads random and with it hashlib, which an idle engine lacks.
    temporary = os.path.join(directory or ".", f".{name}-{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    fsync_paths(directory or ".")
