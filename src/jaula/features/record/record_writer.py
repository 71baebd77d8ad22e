"""The file of a record, written line by line. It is only appended to."""

from __future__ import annotations

import os

from jaula.errors import Conflict, JaulaError, Unavailable
from jaula.features.record.record_document import Document, encode_line
from jaula.kernel.openat2 import unlink_if_same
from jaula.state.audit_log import Head, line_hash

MAX_GROUP = 16 << 20  # bytes of the lines of one group


class RecordWriter:
    """A new file of mode 0600. ``head`` is the number and hash of the last line."""

    def __init__(self, path: str, *, max_group: int = MAX_GROUP) -> None:
        """Create the file.

        :raises Conflict: when there is a file of that name.
        :raises JaulaError: when it cannot be created.
        """
        self.path = path
        self.head = Head()
        self._max_group = max_group
        self._sizes: dict[str, int] = {}
        self._pending: list[bytes] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND
        try:
            self._fd: int | None = os.open(path, flags, 0o600)
        except FileExistsError:
            raise Conflict(
                f"{path} exists, and a record is never overwritten", hint="name another file by -o"
            ) from None
        except OSError as error:
            raise JaulaError(f"cannot create {path}: {error.strerror}") from error

    def append(self, document: Document, group: str = "") -> int:
        """Add a line and return its number, or 0 if its group has its full size.

        A group has a limit of its own, so that a container cannot fill the file with one kind of
        entry and hide another. Lines without a group have no limit.
        """
        line = encode_line(self.head, document)
        if group:
            size = self._sizes.get(group, 0) + len(line) + 1
            if size > self._max_group:
                return 0
            self._sizes[group] = size
        self.head = Head(self.head.n + 1, line_hash(line))
        self._pending.append(line)
        return self.head.n

    def flush(self) -> None:
        """Write the added lines to the disk.

        :raises Unavailable: when the disk does not take them.
        """
        if not self._pending or self._fd is None:
            return
        data = b"\n".join([*self._pending, b""])
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fdatasync(self._fd)
        except OSError as error:
            raise Unavailable(
                f"cannot write {self.path}: {error.strerror}", hint="the record has no end"
            ) from error
        self._pending.clear()

    def is_empty(self) -> bool:
        """Return whether nothing was written to the file."""
        return self._fd is not None and os.fstat(self._fd).st_size == 0

    def remove(self) -> None:
        """Remove the file, unless another one has its name."""
        if self._fd is not None:
            unlink_if_same(self.path, os.fstat(self._fd))

    def close(self) -> None:
        """Close the file. Lines that were not flushed are not written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
