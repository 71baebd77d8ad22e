"""The lines of the audit log: what they say, and how they are written.

What clients said is bounded, and always text that can be written.


The chain of the audit log: how lines prove what came before them. Pure.

A line is a JSON object. It has a number ``n``, one more than the former line's, and ``prev``, the
SHA-256 of the former line's bytes without its newline; the first line's is 64 zeros. The number and
hash of the last line are kept apart, in the *head*, so that a log that was cut at its end is found
too. A file of the log is named by the number of its first line.

What this proves: whoever changes, removes or inserts a line must write every later line and the
head anew. Whoever can do that (root of the host) is found out only by a head that was written down
elsewhere; ``jaula system audit-log --verify`` prints it for that.


The audit log on disk: one line for each request that changed, or tried to change, something.

``<root>/audit/`` (mode 0700) holds files of 16 MiB at most, named by the number of their first
line, and ``head``; :mod:`jaula.state.audit_log` says how they hang together. Sixteen files are kept; a
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

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from jaula.errors import Unavailable

_MAX_TEXT = 512  # characters of a name or an error
_MAX_ARGV = 16384  # characters of all arguments together


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: who, what, on what, with which relaxations, how it ended.

    ``login_uid`` is who logged in, whoever they have become since. ``argv_cut`` counts characters
    of arguments that were left out; values of environment variables are never here.
    """

    uid: int | None = None
    pid: int = 0
    login_uid: int | None = None
    command: str = ""
    certificate: str = ""  # its name; of a client that came over the network
    fingerprint: str = ""
    address: str = ""
    action: str = ""
    object: str = ""
    name: str = ""
    image: str = ""
    asks: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    argv_cut: int = 0
    status: int = 0
    error: str = ""
    up_to: int = 0
    up_to_hash: str = ""


def encode(n: int, now: int, prev: str, entry: AuditEntry) -> bytes:
    """A line without its newline; ``now`` is in nanoseconds since the epoch, UTC."""
    seconds, rest = divmod(now, 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    start = f'{{"n":{n},"time":"{moment}.{rest // 1000:06d}Z","prev":"{prev}",'
    return start.encode() + msgspec.json.encode(_bounded(entry))[1:]


def _bounded(entry: AuditEntry) -> AuditEntry:
    argv, room, cut = [], _MAX_ARGV, 0
    for word in entry.argv:
        argv.append(_text(word, room))
        cut += max(0, len(word) - room)
        room = max(0, room - len(word))
    while argv and not argv[-1] and cut:
        argv.pop()
    return msgspec.structs.replace(
        entry,
        certificate=_text(entry.certificate),
        object=_text(entry.object),
        name=_text(entry.name),
        image=_text(entry.image),
        error=_text(entry.error),
        asks=tuple(_text(ask) for ask in entry.asks[:_MAX_TEXT]),
        argv=tuple(argv),
        argv_cut=cut,
    )


def _text(text: str, most: int = _MAX_TEXT) -> str:
    """Bounded, and encodable whatever it holds."""
    short = text[:most]
    return short if short.isascii() else short.encode("utf-8", "backslashreplace").decode()


ZERO_HASH = "0" * 64
DROP_ACTION = "log drop"  # the action of a line that tells of old files that were removed


class Head(NamedTuple):
    """The last line: its number (0: none yet) and hash."""

    n: int = 0
    hash: str = ZERO_HASH

    def encode(self) -> bytes:
        """One line of a size that never changes, so that it is overwritten in one piece."""
        return b"%020d %s\n" % (self.n, self.hash.encode())

    @classmethod
    def decode(cls, data: bytes) -> Head | None:
        """None where it is damaged."""
        number, _, rest = data.partition(b" ")
        digest = rest.removesuffix(b"\n").decode("ascii", "replace")
        if len(data) != 86 or not number.isdigit() or set(digest) - set("0123456789abcdef"):
            return None
        return cls(int(number), digest)


class ChainLink(msgspec.Struct, frozen=True):
    """What a line says about its place; ``up_to`` of a line about dropped files is their end."""

    n: int
    prev: str
    action: str = ""
    up_to: int = 0
    up_to_hash: str = ""


class ChainError(NamedTuple):
    """Something that is wrong; ``n`` is the line's number."""

    n: int
    text: str


_links = msgspec.json.Decoder(ChainLink)


def line_hash(line: bytes) -> str:
    """The hash of a line, without its newline."""
    return hashlib.sha256(line).hexdigest()


def parse_link(line: bytes) -> ChainLink | None:
    """A line's place in the chain; None where it is no line of the log."""
    try:
        found = _links.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if 0 < found.n < 1 << 62 else None


class ChainCheck:
    """Follows a log from its first line on; ``last`` is the line that came last."""

    def __init__(self, start: Head | None = None) -> None:
        self.last = start or Head()
        self.findings: list[ChainError] = []
        self._begun = start is not None
        self._anchor: Head | None = None  # what came before the first line, if not the beginning
        self._dropped: set[Head] = set()
        self._head_hash = ""

    def lines(self, lines: Iterable[bytes], *, watch: int = 0) -> Iterator[tuple[ChainLink, bytes]]:
        """Check lines and give them on; ``watch`` is the number of the one that the head names."""
        for line in lines:
            found = parse_link(line)
            if found is None:
                self._wrong(self.last.n + 1, f"a line after {self.last.n} is damaged")
                # What it was is unknown: its bytes decide whether the next one follows it.
                self.last = Head(self.last.n + 1, line_hash(line))
                continue
            if not self._begun:
                self._begun = True
                if found.n != 1 or found.prev != ZERO_HASH:
                    self._anchor = Head(found.n - 1, found.prev)
            elif found.n > self.last.n + 1:
                self._wrong(found.n, _missing(self.last.n + 1, found.n - 1))
            elif found.n <= self.last.n:
                self._wrong(found.n, f"line {found.n} comes after line {self.last.n}")
            elif found.prev != self.last.hash:
                self._wrong(
                    found.n, f"line {self.last.n} is not the one that line {found.n} follows"
                )
            if found.action == DROP_ACTION:
                self._dropped.add(Head(found.up_to, found.up_to_hash))
            self.last = Head(found.n, line_hash(line))
            if found.n == watch:
                self._head_hash = self.last.hash
            yield found, line

    def end(self, head: Head | None) -> list[ChainError]:
        """Everything that is wrong, once all lines were given."""
        if self._anchor is not None and self._anchor not in self._dropped:
            self._wrong(self._anchor.n, _missing(1, self._anchor.n))
        if head is None:
            self._wrong(self.last.n, "the head, which names the last line, is missing or damaged")
        elif head.n > self.last.n:
            self._wrong(head.n, _missing(self.last.n + 1, head.n) + " at the end")
        elif head.n and self._head_hash and head.hash != self._head_hash:
            self._wrong(head.n, f"line {head.n} is not the one that the head names")
        return self.findings

    def _wrong(self, n: int, text: str) -> None:
        self.findings.append(ChainError(n, text))


def _missing(first: int, last: int) -> str:
    if first >= last:
        return f"line {last} is missing"
    return f"lines {first} to {last} are missing"


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
