"""The audit log on disk: one line for each request that changed, or tried to change, something.

``<root>/audit/`` (mode 0700) holds files of 16 MiB at most, named by the number of their first
line, and ``head``; :mod:`jaula.state.hash_chain` says how they hang together. Sixteen files are kept; a
line tells of those that were removed.

**What survives.** A line is written before the request is answered, then the head. Both are in the
kernel's hands then: an engine that is killed loses nothing. They are forced to the disk within a
second; what a loss of power takes in that second shows up as lines that the head names and the log
lacks, or as a head that is behind. The next start repairs and writes down what it found: half a
line is cut off, a head that is one line behind is moved, anything else is left to be seen.

**A disk that is full** must not be the way to act unseen: where a line cannot be written, requests
are refused that do more than take something away, until it can.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from jaula.errors import Unavailable
from jaula.state.audit_entry import AuditEntry, encode
from jaula.state.hash_chain import DROP_ACTION, ChainCheck, Head, line_hash, parse_link

MAX_FILE_SIZE = 16 << 20  # bytes
MAX_FILES = 16
HEAD = "head"
_SUFFIX = ".log"
_MAX_WAITING = 1024  # lines that wait for a disk that takes them


class AuditLog:
    """The log of one engine, open for writing. Not for use by several threads."""

    def __init__(
        self, directory: Path, *, max_file: int = MAX_FILE_SIZE, kept_files: int = MAX_FILES
    ) -> None:
        self._directory = directory
        self._max_file = max_file
        self._kept_files = kept_files
        self._waiting: deque[tuple[int, AuditEntry]] = deque()
        self._lost = 0
        self._dirty = False
        self.on_dirty: Callable[[], None] = lambda: None
        self.last = Head()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._head = os.open(directory / HEAD, flags, 0o600)
            self._open()
        except OSError as error:
            raise Unavailable(
                f"cannot open the audit log in {directory}: {error.strerror}",
                hint="check free space and permissions of the root directory",
            ) from error

    # -- the start -------------------------------------------------------------------------------

    def _open(self) -> None:
        noted = os.pread(self._head, 128, 0)
        head = Head.decode(noted) if noted else None
        names = files(self._directory)
        self._path = names[-1] if names else self._file(1)
        self._log = self._open_file(self._path)
        repairs = self._cut_half_a_line()
        found = self._find_last(names)
        if head is None:
            self.last = found
            if names:
                repairs.append("the head was missing or damaged")
        elif head == found:
            self.last = head
        elif head.n > found.n:
            self.last = head
            repairs.append(f"the log ended with line {found.n}, the head names {head.n}")
        else:
            self.last = found
            if not self._follows(head, names):
                repairs.append(f"the head named line {head.n}, which is not the one in the log")
        self._write_head()
        for text in repairs:
            self.append(AuditEntry(action="log repair", error=text, status=500))
        self._dirty = False  # nobody listens yet; the next line takes these along

    def _open_file(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        self._size = os.fstat(fd).st_size
        return fd

    def _file(self, first: int) -> Path:
        return self._directory / f"{first:012d}{_SUFFIX}"

    def _cut_half_a_line(self) -> list[str]:
        """A write that was cut off by a kill or a loss of power: nothing that was complete."""
        end, half = self._size, b""
        while end and b"\n" not in half:
            step = min(end, 65536)
            half = os.pread(self._log, step, end - step) + half
            end -= step
        keep = end + half.rfind(b"\n") + 1
        if keep == self._size:
            return []
        cut = os.pread(self._log, self._size - keep, keep)
        os.ftruncate(self._log, keep)
        text = f"{len(cut)} bytes of half a line were cut off, sha256 {line_hash(cut)}"
        self._size = keep
        return [text]

    def _find_last(self, names: list[Path]) -> Head:
        for path in reversed(names):
            last = b""
            for line in lines(path):
                last = line
            if last:
                found = parse_link(last)
                return Head(found.n if found else 0, line_hash(last))
        return Head()

    def _follows(self, head: Head, names: list[Path]) -> bool:
        """Whether the lines after the one that the head names hang on it."""
        check = ChainCheck()
        for path in names[-2:]:
            for found, line in check.lines(lines(path)):
                if found.n == head.n and line_hash(line) != head.hash:
                    return False
                if found.n == head.n + 1 and found.prev != head.hash:
                    return False
        return not [f for f in check.findings if f.n > head.n]

    # -- writing ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ``Unavailable`` while lines wait for a disk that takes them."""
        if self._waiting:
            self._flush()
        if self._waiting:
            raise Unavailable(
                "the audit log cannot be written, so nothing new is done",
                hint=f"make room for {self._directory}; what stops and removes is still possible",
            )

    def append(self, entry: AuditEntry) -> None:
        """Write one line; where that fails it waits for the next one, or for :meth:`check`."""
        if len(self._waiting) == _MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append((time.time_ns(), entry))
        self._flush()

    def _flush(self) -> None:
        try:
            if self._lost:
                text = f"{self._lost} lines could not be written"
                self._write(time.time_ns(), AuditEntry(action="log lost", error=text, status=500))
                self._lost = 0
            while self._waiting:
                self._write(*self._waiting[0])
                self._waiting.popleft()
        except OSError:
            return  # they wait, and check() says so

    def _write(self, now: int, entry: AuditEntry) -> None:
        if self._size >= self._max_file:
            self._rotate()
        line = encode(self.last.n + 1, now, self.last.hash, entry)
        written = 0
        try:
            written = os.write(self._log, line + b"\n")
        finally:
            if written != len(line) + 1:
                os.ftruncate(self._log, self._size)
        if written != len(line) + 1:
            raise OSError(28, "short write")
        self._size += written
        self.last = Head(self.last.n + 1, line_hash(line))
        self._write_head()
        if not self._dirty:
            self._dirty = True
            self.on_dirty()

    def _write_head(self) -> None:
        os.pwrite(self._head, self.last.encode(), 0)

    def _rotate(self) -> None:
        """Begin a new file; the chain goes on in it. Remove what is too old, and say so in it."""
        path = self._file(self.last.n + 1)
        old, size = self._log, self._size
        try:
            self._log = self._open_file(path)
        except OSError:
            self._log, self._size = old, size
            raise
        self._path = path
        os.fdatasync(old)
        os.close(old)
        names = files(self._directory)
        surplus = names[: max(0, len(names) - self._kept_files)]
        if not surplus:
            return
        end = self._find_last(surplus)
        text = f"lines up to {end.n} were removed, as more than {self._kept_files} files are kept"
        told = AuditEntry(
            action=DROP_ACTION, error=text, status=200, up_to=end.n, up_to_hash=end.hash
        )
        self._write(time.time_ns(), told)
        for name in surplus:
            name.unlink()

    # -- the disk --------------------------------------------------------------------------------

    def syncer(self) -> Callable[[], None]:
        """What forces everything written so far to the disk; may run in another thread."""
        self._dirty = False
        descriptors = (os.dup(self._log), os.dup(self._head))

        def sync() -> None:
            for fd in descriptors:
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)

        return sync

    def close(self) -> None:
        """Force it to the disk and close it."""
        self.syncer()()
        os.close(self._log)
        os.close(self._head)


def files(directory: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix == _SUFFIX and len(path.stem) == 12 and path.stem.isdigit()
    )


def lines(path: Path) -> Iterator[bytes]:
    """The whole lines of one file, without their newlines; one may just be being written."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def read_head(directory: Path) -> Head | None:
    """The head of a log; None where it is missing or damaged."""
    try:
        return Head.decode((directory / HEAD).read_bytes())
    except FileNotFoundError:
        return None
