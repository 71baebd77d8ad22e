"""Read tar archives with ustar, GNU and pax headers, from a stream or a mapped file.

Follows POSIX.1-2017 (pax, ``ustar`` interchange format) and the GNU tar manual (``Basic Tar
Format``, ``@LongLink``, base-256 numbers). The module parses headers only.
:mod:`jaula.storage.layers.extract` decides what an entry may do to a file system.

The input is hostile: numbers, lengths and counts are limited, and each error is an
:class:`~jaula.errors.InvalidRequest`.

Facts about tar: names are bytes without an encoding. A pax ``size`` or ``path`` overrides the
header's. An archive ends with two zero blocks, but some writers omit them. Sparse files (GNU type
``S`` and ``GNU.sparse`` records) are not used in image layers and are refused.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from jaula.errors import InvalidRequest
from jaula.storage.tar.pax import apply_records, parse_records
from jaula.storage.tar.tar_entry import BLOCK, DIRECTORY, HARD_LINK, REGULAR, TarEntry, quote_name

_WINDOW = 1 << 20  # bytes


class Limits(msgspec.Struct, frozen=True):
    """The limits of one archive."""

    entries: int = 2_000_000
    bytes: int = 256 << 30  # of the uncompressed archive
    path: int = 4095  # bytes of a name or a link's target (PATH_MAX less its NUL)
    extended: int = 1 << 20  # bytes of one pax or GNU long-name header


class Stream(Protocol):
    """A readable stream."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class Archive(Protocol):
    """The entries of an archive, and the data of the present one in chunks."""

    consumed: int  # bytes read from the source

    def __iter__(self) -> Iterator[TarEntry]: ...

    def next(self) -> TarEntry | None: ...

    def data(self) -> Iterator[memoryview]: ...

    def read(self, limit: int, what: str, /) -> bytes: ...

    def drain(self) -> None: ...


_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZERO = bytes(BLOCK)
_ADLER = 65521
_MAX_DEVICE = 2**32  # of a major or a minor number
_MAX_TIME = 2**41 * 1_000_000_000  # nanoseconds; file systems store less and clamp


class TarReader:
    """Iterates over the entries of one archive.

    ``tap`` is called with every byte that is read, once. With ``padded`` the padding of the last
    entry must not be missing.
    """

    def __init__(
        self,
        stream: Stream | mmap.mmap,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        tap: Callable[[memoryview], object] | None = None,
        padded: bool = True,
    ) -> None:
        self._limits = limits
        self._padded = padded
        self._tap = tap
        self._stream: Stream | None
        self._position = 0
        if isinstance(stream, mmap.mmap):
            self._stream = None
            self._window = memoryview(stream)
            self._end = len(self._window)
            self.consumed = self._end
        else:
            self._stream = stream
            self._window = memoryview(bytearray(_WINDOW))
            self._end = 0
            self.consumed = 0  # bytes read from the source
        self._unread = 0  # bytes of the present entry's data
        self._padding = 0
        self._entries = 0

    def close(self) -> None:
        """Release the buffer. A mapped file cannot be closed before."""
        self._window.release()

    # -- bytes ----------------------------------------------------------------------------------

    @property
    def offset(self) -> int:
        """The position in the archive: after :meth:`next`, that of the data of a regular file."""
        return self.consumed - (self._end - self._position)

    def _fill(self, size: int) -> int:
        """Fill the window with up to ``size`` bytes. Return the number of available bytes."""
        available = self._end - self._position
        if available >= size or self._stream is None:
            return available
        if self._position:
            self._window[:available] = bytes(self._window[self._position : self._end])
            self._position, self._end = 0, available
        while self._end < size:
            count = self._stream.readinto(self._window[self._end :])
            if not count:
                break
            if self._tap is not None:
                self._tap(self._window[self._end : self._end + count])
            self._end += count
            self.consumed += count
            if self.consumed > self._limits.bytes:
                raise archive_too_large(self._limits)
        return self._end - self._position

    def _skip(self, count: int, *, needed: bool = True) -> None:
        while count:
            available = self._fill(min(count, _WINDOW))
            if not available:
                if not needed:
                    return
                raise truncated_entry()
            step = min(available, count)
            self._position += step
            count -= step

    def data(self) -> Iterator[memoryview]:
        """Yield the data of the present entry. A chunk is valid until the next iteration."""
        while self._unread:
            available = self._fill(1)
            if not available:
                raise truncated_entry()
            step = min(available, self._unread)
            chunk = self._window[self._position : self._position + step]
            self._position += step
            self._unread -= step
            yield chunk

    def read(self, limit: int, what: str) -> bytes:
        """Return all data of the present entry. ``what`` names it in an error.

        :raises InvalidRequest: when it is longer than ``limit`` bytes.
        """
        if self._unread > limit:
            raise InvalidRequest(f"{what} has {self._unread} bytes, at most {limit} are accepted")
        return b"".join(bytes(chunk) for chunk in self.data())

    def drain(self) -> None:
        """Read the bytes after the end of the archive, so that ``tap`` gets them."""
        while self._fill(1):
            self._position = self._end

    # -- entries --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> TarEntry | None:
        """Return the next entry, None at the end. Unread data of the present one is skipped."""
        self._skip(self._unread)
        self._skip(self._padding, needed=self._padded)
        self._unread = self._padding = 0
        extended: dict[bytes, bytes] = {}
        for _ in range(16):
            entry = self._header()
            if entry is None:
                if extended:
                    raise InvalidRequest("the archive ends after an extended header")
                return None
            if entry.type in b"xgLK":
                data = self._extended(entry)
                if entry.type == ord("L"):
                    extended[b"path"] = data.split(b"\0", 1)[0]
                elif entry.type == ord("K"):
                    extended[b"linkpath"] = data.split(b"\0", 1)[0]
                elif entry.type == ord("x"):
                    extended.update(parse_records(data))
                continue
            if extended:
                apply_records(entry, extended)
            self._entries += 1
            if self._entries > self._limits.entries:
                raise too_many_entries(self._limits)
            self._check(entry)
            return entry
        raise InvalidRequest("the archive has too many extended headers in a row")

    def _check(self, entry: TarEntry) -> None:
        if entry.type in b"\x007":  # old regular file, contiguous file
            entry.type = DIRECTORY if entry.name.endswith(b"/") else REGULAR
        check_entry(entry, self._limits)
        if entry.type == REGULAR:
            self._unread = entry.size
            self._padding = -entry.size % BLOCK
        elif entry.type != HARD_LINK and entry.size:
            self._skip(entry.size + (-entry.size % BLOCK))
            entry.size = 0

    def _extended(self, entry: TarEntry) -> bytes:
        if not 0 <= entry.size <= self._limits.extended:
            raise InvalidRequest(
                f"an extended header claims {entry.size} bytes, "
                f"at most {self._limits.extended} are accepted"
            )
        if self._fill(entry.size + (-entry.size % BLOCK)) < entry.size:
            raise InvalidRequest("the archive is truncated inside an extended header")
        data = bytes(self._window[self._position : self._position + entry.size])
        self._skip(entry.size + (-entry.size % BLOCK))
        return data

    def _header(self) -> TarEntry | None:
        available = self._fill(BLOCK)
        if available < BLOCK:
            if available:
                raise InvalidRequest("the archive is truncated inside a header")
            return None
        position = self._position
        self._position += BLOCK
        window = self._window
        if not window[position] and window[position : position + BLOCK] == _ZERO:
            if self._fill(BLOCK) >= BLOCK:
                if self._window[self._position : self._position + BLOCK] != _ZERO:
                    raise InvalidRequest("the archive goes on after a block of zeros")
                self._position += BLOCK
            return None
        (
            name,
            mode,
            uid,
            gid,
            size,
            mtime,
            checksum,
            kind,
            link,
            magic,
            _,
            _,
            major,
            minor,
            prefix,
        ) = _HEADER.unpack_from(window, position)
        _verify_checksum(window[position : position + BLOCK], checksum)
        entry = TarEntry()
        entry.name = name.split(b"\0", 1)[0]
        if prefix[0] and magic == b"ustar\x0000":
            entry.name = prefix.split(b"\0", 1)[0] + b"/" + entry.name
        entry.type = kind[0]
        entry.mode = parse_number(mode) & 0o7777
        entry.uid = parse_number(uid)
        entry.gid = parse_number(gid)
        entry.size = parse_number(size)
        entry.mtime = parse_number(mtime) * 1_000_000_000
        if entry.type in b"12":
            entry.link = link.split(b"\0", 1)[0]
        elif entry.type in b"34":
            entry.major = parse_number(major)
            entry.minor = parse_number(minor)
        return entry


def truncated_entry() -> InvalidRequest:
    """Return the error of an archive that ends inside an entry."""
    return InvalidRequest("the archive is truncated inside an entry")


def archive_too_large(limits: Limits) -> InvalidRequest:
    """Return the error of an archive with more bytes than it may have."""
    return InvalidRequest(f"the archive is larger than {limits.bytes} bytes")


def too_many_entries(limits: Limits) -> InvalidRequest:
    """Return the error of an archive with more entries than it may have."""
    return InvalidRequest(f"the archive has more than {limits.entries} entries")


def check_entry(entry: TarEntry, limits: Limits) -> None:
    """Check the values of an entry against the limits of an archive. Pure.

    :raises InvalidRequest: when one is not acceptable.
    """
    for path in (entry.name, entry.link):
        if len(path) > limits.path:
            raise InvalidRequest(
                f"entry {quote_name(entry.name)} has a path of {len(path)} bytes, "
                f"at most {limits.path} are accepted"
            )
        if b"\0" in path:
            raise InvalidRequest(f"entry {quote_name(entry.name)} has a NUL byte in its name")
    if not 0 <= entry.size <= limits.bytes:
        raise InvalidRequest(f"entry {quote_name(entry.name)} claims a size of {entry.size} bytes")
    if not (0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1):
        raise InvalidRequest(f"entry {quote_name(entry.name)} has an owner out of range")
    if not -_MAX_TIME < entry.mtime < _MAX_TIME:
        raise InvalidRequest(f"entry {quote_name(entry.name)} has a time out of range")
    if not (0 <= entry.major < _MAX_DEVICE and 0 <= entry.minor < _MAX_DEVICE):
        raise InvalidRequest(f"entry {quote_name(entry.name)} has a device number out of range")
    if entry.type not in b"0123456":
        raise InvalidRequest(
            f"entry {quote_name(entry.name)} has the type {chr(entry.type)!r}, "
            "which image layers do not use"
        )


def is_tar_header(data: memoryview) -> bool:
    """Return whether data starts with a POSIX or GNU tar header."""
    return len(data) >= BLOCK and bytes(data[257:262]) == b"ustar"


def parse_number(field: bytes) -> int:
    """Parse a numeric field: octal digits, or GNU base-256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        return value - (1 << bits) if field[0] & 0x40 else value & ((1 << (bits - 1)) - 1)
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise InvalidRequest(
            f"the archive has a header field {quote_name(field)} that is not a number"
        )
    try:
        return int(digits, 8)
    except ValueError as error:
        raise InvalidRequest(f"the archive has a header field {quote_name(field)}") from error


def _verify_checksum(header: memoryview, checksum: bytes) -> None:
    """Check the header's sum of bytes, in which the checksum field counts as blanks.

    The low half of Adler-32 is that sum (plus one, modulo 65521), and it is computed in C.

    :raises InvalidRequest: when the sum is wrong.
    """
    try:
        expected = parse_number(checksum)
    except InvalidRequest:
        raise InvalidRequest("not a tar archive, or a damaged one: a block is no header") from None
    field_sum = sum(checksum) - 8 * 32
    if (zlib.adler32(header) & 0xFFFF) == (1 + expected + field_sum) % _ADLER:
        return
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)  # old writers
    signed -= sum(byte - 256 if byte > 127 else byte for byte in checksum) - 8 * 32
    if signed != expected:
        raise InvalidRequest("not a tar archive, or a damaged one: a header's checksum is wrong")
