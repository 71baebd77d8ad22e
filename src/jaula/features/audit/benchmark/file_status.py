"""Owner and mode of files: lstat(2)."""

from __future__ import annotations

import os
import stat

import msgspec


class FileStatus(msgspec.Struct, frozen=True):
    """A file as lstat(2) describes it; ``mode`` has the permission bits."""

    path: str
    uid: int
    gid: int
    mode: int
    is_directory: bool = False

    def describe(self) -> str:
        """Return mode, owner and path."""
        return f"{self.path} is {self.mode:04o} of {self.uid}:{self.gid}"


def read(path: str) -> FileStatus | None:
    """Return the status of a path, None if it is absent.

    Symbolic links are followed in the directories of the path and at its end, because the file
    that the engine opens counts; the path is the one at the end.

    :raises OSError: when a directory of it may not be searched.
    """
    try:
        real = os.path.realpath(path, strict=True)
        status = os.lstat(real)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileStatus(
        real, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode),
        stat.S_ISDIR(status.st_mode),
    )  # fmt: skip
