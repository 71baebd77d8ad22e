"""The audit log: one line for each request that changed, or tried to change, something.

``<root>/audit/`` (mode 0700) has files of 16 MiB at most, named by the number of their first line,
and the file ``head``. 32 files are kept; removing older ones is logged.

**Format.** A line is a JSON object (:class:`AuditEntry`). It has a number ``n``, one more than the
previous line's, and ``prev``, the SHA-256 of the previous line without its newline; the first
line's ``prev`` is 64 zeros. ``head`` has the number and hash of the last line, so that truncation
is detected. So is a line that was appended: it comes after the line in the head. Texts of clients
are bounded, and escaped where they are not valid Unicode.

**What the hash chain proves.** To change, remove or insert a line, an attacker has to rewrite every
later line and the head. Root of the host can do that. It is only detected by a head that was copied
elsewhere; ``jaula system audit-log --verify`` prints it for that purpose.

**Durability.** A line is written before the request is answered, then the head. The kernel has both
then, so a killed engine loses nothing. They are synced to disk within a second. A power failure may
lose that second: the log then ends before the line in the head, or the head is behind the log. The
next start repairs and logs this: it cuts a partial line off and moves a head that is behind, also
behind lines that another program appended. Anything else is left for inspection.

**A full disk** must not hide requests. If a line cannot be written, only requests that stop or
remove something are allowed until lines can be written again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from jaula.errors import Unavailable
from jaula.sha256 import sha256

_MAX_TEXT = 256  # bytes of a name or an error, as JSON
_MAX_LIST = 512  # bytes of all arguments together, or of all relaxations, as JSON


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: the client, the operation, the object, the relaxations and the result.

    ``login_uid`` is the uid of the login session, whatever uid the client has now. Values of
    environment variables are never logged. ``count`` is set if a line stands for several requests.

    A long text is cut, and ends in its length and the SHA-256 of the whole text. Of long lists the
    first words are kept; ``argv_cut`` and ``asks_cut`` have the number of all words and the SHA-256
    of the words, each followed by a zero byte.

    ``pod`` is ``NAMESPACE/NAME`` of the pod that the object is or belongs to, and ``pod_uid`` its
    UID.

    ``seal`` is the hash of a container's request after a creation or an update. ``spec_seal`` is
    the hash of the spec that the engine has written for a start.
    """

    uid: int | None = None
    pid: int = 0
    login_uid: int | None = None
    command: str = ""
    certificate: str = ""  # name of a TLS client's certificate
    fingerprint: str = ""
    address: str = ""
    via: str = ""  # web: the request came through the web view
    container: str = ""  # id of the container whose engine socket was used
    action: str = ""
    object: str = ""
    name: str = ""
    image: str = ""
    pod: str = ""
    pod_uid: str = ""
    asks: tuple[str, ...] = ()
    asks_cut: str = ""
    argv: tuple[str, ...] = ()
    argv_cut: str = ""
    status: int = 0
    error: str = ""
    count: int = 0
    seal: str = ""
    spec_seal: str = ""
    up_to: int = 0
    up_to_hash: str = ""


def encode_entry(n: int, now: int, prev: str, entry: AuditEntry) -> bytes:
    """Return a line without its newline. ``now`` is in nanoseconds since the epoch, UTC."""
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    start = f'{{"n":{n},"time":"{timestamp}.{nanoseconds // 1000:06d}Z","prev":"{prev}",'
    return start.encode() + msgspec.json.encode(_bounded(entry))[1:]


def _bounded(entry: AuditEntry) -> AuditEntry:
    argv, argv_cut = _words(entry.argv)
    asks, asks_cut = _words(entry.asks)
    return msgspec.structs.replace(
        entry,
        command=_text(entry.command),
        certificate=_text(entry.certificate),
        object=_text(entry.object),
        name=_text(entry.name),
        image=_text(entry.image),
        pod=_text(entry.pod),
        pod_uid=_text(entry.pod_uid),
        error=_text(entry.error),
        asks=asks,
        asks_cut=asks_cut,
        argv=argv,
        argv_cut=argv_cut,
    )


def _words(words: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Return the first words of a list, and what identifies the whole list if it was cut."""
    kept: list[str] = []
    left = _MAX_LIST
    for word in words:
        text = _text(word, min(left, _MAX_TEXT))
        left -= _json_size(text)
        if left < 0:
            break
        kept.append(text)
    if tuple(kept) == words:
        return words, ""
    digest = line_hash(b"".join(_bytes(word) + b"\0" for word in words))
    return tuple(kept), f"{len(words)} words, sha256 {digest}"


def _text(text: str, limit: int = _MAX_TEXT) -> str:
    """Return a text of about ``limit`` bytes, escaped if it cannot be encoded."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    whole = _bytes(text)
    kept = whole[:limit].decode("utf-8", "ignore")
    while _json_size(kept) > limit:
        kept = kept[: len(kept) * 3 // 4]
    if len(kept) == len(whole.decode()):
        return kept
    return f"{kept}... ({len(whole)} bytes, sha256 {line_hash(whole)})"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _json_size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2


ZERO_HASH = "0" * 64
DROP_ACTION = "log drop"  # action of the line that records the removal of old files


class Head(NamedTuple):
    """Number (0: none yet) and hash of the last line."""

    n: int = 0
    hash: str = ZERO_HASH

    def encode(self) -> bytes:
        """Return one line of constant size, so that it is overwritten by a single write."""
        return b"%020d %s\n" % (self.n, self.hash.encode())

    @classmethod
    def decode(cls, data: bytes) -> Head | None:
        """Return the head, or None if the data is damaged."""
        number, _, nanoseconds = data.partition(b" ")
        digest = nanoseconds.removesuffix(b"\n").decode("ascii", "replace")
        if len(data) != 86 or not number.isdigit() or set(digest) - set("0123456789abcdef"):
            return None
        return cls(int(number), digest)


class ChainLink(msgspec.Struct, frozen=True):
    """The fields of a line that chain it; ``up_to`` of a drop line is the last removed line."""

    n: int
    prev: str
    action: str = ""
    up_to: int = 0
    up_to_hash: str = ""


class ChainError(NamedTuple):
    """An error in the chain; ``n`` is the line's number."""

    n: int
    text: str


_links = msgspec.json.Decoder(ChainLink)


def line_hash(line: bytes) -> str:
    """Return the hash of a line without its newline."""
    return sha256(line).hexdigest()


def parse_link(line: bytes) -> ChainLink | None:
    """Return a line's chain fields, or None if it is not a line of the log."""
    try:
        entry_link = _links.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return entry_link if 0 < entry_link.n < 1 << 62 else None


class ChainCheck:
    """Verifies a log from its first line on. ``last`` is the last line that was read."""

    def __init__(self, start: Head | None = None) -> None:
        self.last = start or Head()
        self.errors: list[ChainError] = []
        self._started = start is not None
        self._anchor: Head | None = None  # the line before the first one, if that is not line 1
        self._dropped: set[Head] = set()
        self._head_hash = ""

    def lines(self, lines: Iterable[bytes], *, watch: int = 0) -> Iterator[tuple[ChainLink, bytes]]:
        """Verify lines and yield them. ``watch`` is the number of the line that the head names."""
        for line in lines:
            entry_link = parse_link(line)
            if entry_link is None:
                self._report(self.last.n + 1, f"a line after {self.last.n} is damaged")
                # Its content is unknown: its hash decides whether the next line follows it.
                self.last = Head(self.last.n + 1, line_hash(line))
                continue
            if not self._started:
                self._started = True
                if entry_link.n != 1 or entry_link.prev != ZERO_HASH:
                    self._anchor = Head(entry_link.n - 1, entry_link.prev)
            elif entry_link.n > self.last.n + 1:
                self._report(entry_link.n, _missing_lines(self.last.n + 1, entry_link.n - 1))
            elif entry_link.n <= self.last.n:
                self._report(entry_link.n, f"line {entry_link.n} comes after line {self.last.n}")
            elif entry_link.prev != self.last.hash:
                self._report(
                    entry_link.n,
                    f"line {self.last.n} is not the one that line {entry_link.n} follows",
                )
            if entry_link.action == DROP_ACTION:
                self._dropped.add(Head(entry_link.up_to, entry_link.up_to_hash))
            self.last = Head(entry_link.n, line_hash(line))
            if entry_link.n == watch:
                self._head_hash = self.last.hash
            yield entry_link, line

    def end(self, head: Head | None, newest: Head | None = None) -> list[ChainError]:
        """Return all errors, once every line was read.

        ``head`` was read before the lines, ``newest`` after them: an engine may write meanwhile.
        """
        if self._anchor is not None and self._anchor not in self._dropped:
            self._report(self._anchor.n, _missing_lines(1, self._anchor.n))
        if head is None:
            self._report(self.last.n, "the head, which names the last line, is missing or damaged")
        elif head.n > self.last.n:
            self._report(head.n, _missing_lines(self.last.n + 1, head.n) + " at the end")
        elif head.n and self._head_hash and head.hash != self._head_hash:
            self._report(head.n, f"line {head.n} is not the one that the head names")
        newest = newest or head
        if newest is not None and newest.n < self.last.n:
            first, last = newest.n + 1, self.last.n
            lines = f"line {last} comes" if first == last else f"lines {first} to {last} come"
            self._report(first, f"{lines} after the last line that the head names")
        return self.errors

    def _report(self, n: int, text: str) -> None:
        self.errors.append(ChainError(n, text))


class Verification(NamedTuple):
    """The first and last line of a log, and the errors of its chain."""

    first: int
    last: Head
    errors: list[ChainError]


def verify(directory: Path, copies: Iterable[Head] = ()) -> Verification:
    """Verify a log, also while an engine writes it. ``copies`` are heads that it had before.

    :raises OSError: when it cannot be read.
    """
    head = read_head(directory)
    check, first = ChainCheck(), 0
    expected = {copy.n: copy.hash for copy in copies if copy != Head()}  # that of an empty log
    for path in files(directory):
        for entry_link, line in check.lines(lines(path), watch=head.n if head else 0):
            first = first or entry_link.n
            if entry_link.n in expected and expected[entry_link.n] == line_hash(line):
                del expected[entry_link.n]
    for n in sorted(expected):
        check.errors.append(ChainError(n, f"line {n} is not the one of the given head"))
    newest = read_head(directory)
    for _ in range(_HEAD_READS):  # a line is written before the head that names it
        if newest is None or newest.n >= check.last.n:
            break
        time.sleep(_HEAD_PAUSE)
        newest = read_head(directory)
    return Verification(first, check.last, check.end(head, newest))


def _missing_lines(first: int, last: int) -> str:
    if first >= last:
        return f"line {last} is missing"
    return f"lines {first} to {last} are missing"


MAX_FILE_SIZE = 16 << 20  # bytes
MAX_FILES = 32
HEAD = "head"
_SUFFIX = ".log"
_HEAD_READS, _HEAD_PAUSE = 20, 0.01  # seconds
_MAX_WAITING = 1024  # lines that wait for a writable disk


class AuditLog:
    """The log of one engine, open for writing. Not thread safe."""

    def __init__(
        self, directory: Path, *, max_file: int = MAX_FILE_SIZE, kept_files: int = MAX_FILES
    ) -> None:
        self._directory = directory
        self._max_file = max_file
        self._kept_files = kept_files
        self._waiting: deque[tuple[int, AuditEntry]] = deque()
        self._lost = 0
        self._written = 0  # bytes since the start
        self.is_dirty = False
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

    # -- open and repair -------------------------------------------------------------------------

    def _open(self) -> None:
        head_data = os.pread(self._head, 128, 0)
        head = Head.decode(head_data) if head_data else None
        paths = files(self._directory)
        self._path = paths[-1] if paths else self._file(1)
        self._log = self._open_file(self._path)
        repairs = self._truncate_partial_line()
        entry_link = self._find_last(paths)
        if head is None:
            self.last = entry_link
            if paths:
                repairs.append("the head was missing or damaged")
        elif head == entry_link:
            self.last = head
        elif head.n > entry_link.n:
            self.last = head
            repairs.append(f"the log ended with line {entry_link.n}, the head names {head.n}")
        else:
            self.last = entry_link
            if not self._continues(head, paths):
                repairs.append(f"the head named line {head.n}, which is not the one in the log")
            else:
                repairs.append(
                    f"the head named line {head.n}, the log ended with line {entry_link.n}"
                )
        self._write_head()
        for text in repairs:
            self.append(AuditEntry(action="log repair", error=text, status=500))
        self.is_dirty = False  # no callback is set yet; the next line syncs these as well

    def _open_file(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        self._size = os.fstat(fd).st_size
        return fd

    def _file(self, first: int) -> Path:
        return self._directory / f"{first:012d}{_SUFFIX}"

    def _truncate_partial_line(self) -> list[str]:
        """Cut off the partial line of an interrupted write. Return what was repaired."""
        end, tail = self._size, b""
        while end and b"\n" not in tail:
            step = min(end, 65536)
            tail = os.pread(self._log, step, end - step) + tail
            end -= step
        end_of_lines = end + tail.rfind(b"\n") + 1
        if end_of_lines == self._size:
            return []
        dropped_bytes = os.pread(self._log, self._size - end_of_lines, end_of_lines)
        os.ftruncate(self._log, end_of_lines)
        text = (
            f"{len(dropped_bytes)} bytes of a partial line were cut off,"
            f" sha256 {line_hash(dropped_bytes)}"
        )
        self._size = end_of_lines
        return [text]

    def _find_last(self, paths: list[Path]) -> Head:
        for path in reversed(paths):
            last = b""
            for line in lines(path):
                last = line
            if last:
                entry_link = parse_link(last)
                return Head(entry_link.n if entry_link else 0, line_hash(last))
        return Head()

    def _continues(self, head: Head, paths: list[Path]) -> bool:
        """Return whether the lines after the head's line chain to it."""
        check = ChainCheck()
        for path in paths[-2:]:
            for entry_link, line in check.lines(lines(path)):
                if entry_link.n == head.n and line_hash(line) != head.hash:
                    return False
                if entry_link.n == head.n + 1 and entry_link.prev != head.hash:
                    return False
        return not [f for f in check.errors if f.n > head.n]

    # -- writing ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise an error while lines cannot be written.

        :raises Unavailable: when a line is waiting and still cannot be written.
        """
        if self._waiting:
            self._flush()
        if self._waiting:
            raise Unavailable(
                "the audit log cannot be written, so only stopping and removing is allowed",
                hint=f"free space in {self._directory}",
            )

    def append(self, entry: AuditEntry) -> int:
        """Write one line, and return its bytes with those of lines that waited.

        If that fails, the line waits for the next call or for :meth:`check`.
        """
        before = self._written
        if len(self._waiting) == _MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append((time.time_ns(), entry))
        self._flush()
        return self._written - before

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
            return  # the lines wait; check() reports that

    def _write(self, now: int, entry: AuditEntry) -> None:
        if self._size >= self._max_file:
            self._rotate()
        line = encode_entry(self.last.n + 1, now, self.last.hash, entry)
        written = 0
        try:
            written = os.write(self._log, line + b"\n")
        finally:
            if written != len(line) + 1:
                os.ftruncate(self._log, self._size)
        if written != len(line) + 1:
            raise OSError(28, "short write")
        self._size += written
        self._written += written
        self.last = Head(self.last.n + 1, line_hash(line))
        self._write_head()
        if not self.is_dirty:
            self.is_dirty = True
            self.on_dirty()

    def _write_head(self) -> None:
        os.pwrite(self._head, self.last.encode(), 0)

    def _rotate(self) -> None:
        """Continue the chain in a new file. Remove files beyond the limit and log their removal."""
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
        paths = files(self._directory)
        surplus = paths[: max(0, len(paths) - self._kept_files)]
        if not surplus:
            return
        end = self._find_last(surplus)
        text = f"lines up to {end.n} were removed, as more than {self._kept_files} files are kept"
        drop_entry = AuditEntry(
            action=DROP_ACTION, error=text, status=200, up_to=end.n, up_to_hash=end.hash
        )
        self._write(time.time_ns(), drop_entry)
        for name in surplus:
            name.unlink()

    # -- sync and close --------------------------------------------------------------------------

    def syncer(self) -> Callable[[], None]:
        """Return a function that syncs everything written so far; any thread may call it."""
        log = os.dup(self._log)
        try:
            descriptors = (log, os.dup(self._head))
        except OSError:
            os.close(log)
            raise
        self.is_dirty = False  # after what can fail, so that the next entry tries again

        def sync() -> None:
            for fd in descriptors:
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)

        return sync

    def close(self) -> None:
        """Sync and close the log."""
        self.syncer()()
        os.close(self._log)
        os.close(self._head)


def files(directory: Path) -> list[Path]:
    """Return the files of a log, oldest first."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix == _SUFFIX and len(path.stem) == 12 and path.stem.isdigit()
    )


def lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of one file without newlines; the last line may be incomplete."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def read_head(directory: Path) -> Head | None:
    """Return the head of a log, or None if it is missing or damaged."""
    try:
        return Head.decode((directory / HEAD).read_bytes())
    except FileNotFoundError:
        return None
