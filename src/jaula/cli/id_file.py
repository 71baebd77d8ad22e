"""Files with the id of a container or pod (``--cidfile``, ``--pod-id-file``)."""

from __future__ import annotations

from posix import fstat, stat, unlink

_MAX_ID = 4096  # bytes of a file


class IdFile:
    """A file and the id in it, as they were read."""

    def __init__(self, path: str) -> None:
        """Read the file.

        :raises OSError: when it cannot be read.
        :raises UnicodeDecodeError: when it is not text.
        """
        self.path = path
        self._file, self.id = _read(path)

    def remove(self) -> None:
        """Remove the file, unless another command has removed, replaced or rewritten it since."""
        try:
            if _read(self.path) == (self._file, self.id):
                unlink(self.path)
        except FileNotFoundError:
            return


def _read(path: str) -> tuple[tuple[int, int], str]:
    """Return the device and inode of a file, and the id in it."""
    with open(path, encoding="ascii") as file:
        status = fstat(file.fileno())
        return (status.st_dev, status.st_ino), file.read(_MAX_ID).strip()


def write(path: str, identity: str) -> None:
    """Write an id to a new file; nothing is left of it after a failure.

    :raises FileExistsError: when there is a file.
    :raises OSError: when it cannot be written.
    """
    with open(path, "xb", buffering=0) as file:
        try:
            file.write(identity.encode())
        except BaseException:
            made, current = fstat(file.fileno()), stat(path)
            if (made.st_dev, made.st_ino) == (current.st_dev, current.st_ino):
                unlink(path)
            raise
