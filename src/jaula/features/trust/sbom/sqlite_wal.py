"""Apply a write-ahead log of SQLite to the bytes of its database. Pure.

Source: sqlite.org/fileformat2.html, "The Write-Ahead Log" and "The Database Header". SQLite applies
a log only to a file, which a sandboxed process has not.

A frame is valid if it has the salts of the log's header and the checksum of all bytes up to it. The
frames up to the last valid one that ends a transaction are the content. Later ones are ignored, as
SQLite does.
"""

from __future__ import annotations

import struct

_MAGIC = (0x377F0682, 0x377F0683)  # the checksum reads little-endian or big-endian words
_HEADER, _FRAME = 32, 24  # bytes
_VERSION = 3007000
_DATABASE_HEADER = 100  # bytes
_MAX_PAGE = 65536  # bytes


def without_log(data: bytes) -> bytes:
    """Return the database with the journal mode that needs no log."""
    return data[:18] + b"\1\1" + data[20:] if len(data) >= _DATABASE_HEADER else data


def with_log(data: bytes, log: bytes) -> bytes:
    """Return the database with the transactions of the log, the database itself if it has none."""
    if len(log) < _HEADER:
        return data
    magic, version, size, _, *_ = struct.unpack_from(">4I", log)
    if magic not in _MAGIC or version != _VERSION:
        return data
    if size < 512 or size > _MAX_PAGE or size & (size - 1):
        return data
    order = "<>"[magic & 1]
    sums = _checksum(order, log[:24], 0, 0)
    if struct.unpack_from(">2I", log, 24) != sums:
        return data
    salts = log[16:24]
    pages: dict[int, int] = {}  # offsets in the log, of transactions that are complete
    pending: dict[int, int] = {}
    count = 0
    for offset in range(_HEADER, len(log) - _FRAME - size + 1, _FRAME + size):
        number, commit = struct.unpack_from(">2I", log, offset)
        start = offset + _FRAME
        sums = _checksum(order, log[offset : offset + 8], *sums)
        sums = _checksum(order, log[start : start + size], *sums)
        stated = struct.unpack_from(">2I", log, offset + 16)
        if log[offset + 8 : offset + 16] != salts or stated != sums or not number:
            break
        pending[number] = start
        if commit:
            pages |= pending
            pending, count = {}, commit
    if not pages:
        return data
    # A sparse page number would make a file of zeros: SQLite writes each page that it adds.
    count = min(count, len(data) // size + len(pages))
    result = bytearray(data[: count * size])
    result += bytes(count * size - len(result))
    for number, start in pages.items():
        if number <= count:
            result[(number - 1) * size : number * size] = log[start : start + size]
    return bytes(result)


def _checksum(order: str, data: bytes, first: int, second: int) -> tuple[int, int]:
    """Return the checksum of the words of ``data``, an even number, after that of others."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
