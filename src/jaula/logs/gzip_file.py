"""A log file packed: one member of gzip (RFC 1952), written in pieces and read as far as it goes.

The header's extra field (section 2.3.1.1) has a subfield ``JL``: the inode of the plain file. Who
was reading that one when it went finds by it where to go on. Other programs pass over it.

Facts about cost: zlib's level 1 packs 10 MB of records in a twentieth of a second into a tenth of
their size or less; level 6 takes twice as long and saves little more.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

SUFFIX = ".gz"
_LEVEL = 1
_BLOCK = 64 * 1024
_INPUT = 4096  # read at once: damage costs no more than a look at these bytes one by one
_HEADER = struct.Struct("<2sBBIBBH2sHQ")
_MAGIC, _DEFLATE, _HAS_EXTRA, _FASTEST, _UNIX, _NAME = b"\x1f\x8b", 8, 4, 4, 3, b"JL"
_RAW, _GZIP = -zlib.MAX_WBITS, 16 + zlib.MAX_WBITS  # what zlib calls window bits


def compress(source: int, target: int) -> None:
    """Read ``source`` from its place to its end; the memory it takes is that of a block.

    It has reached the disk when this returns: what was packed may then be removed.
    """
    status = os.fstat(source)
    when = int(status.st_mtime) & 0xFFFFFFFF
    about = (_MAGIC, _DEFLATE, _HAS_EXTRA, when, _FASTEST, _UNIX, 12, _NAME, 8, status.st_ino)
    _put(target, _HEADER.pack(*about))
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    check, length = 0, 0
    while block := os.read(source, _BLOCK):
        check = zlib.crc32(block, check)
        length += len(block)
        _put(target, deflate.compress(block))
    _put(target, deflate.flush() + struct.pack("<II", check, length & 0xFFFFFFFF))
    os.fsync(target)


def _put(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def source_inode(descriptor: int) -> int | None:
    """The inode of the plain file, 0 where a packed one does not tell; None of a plain file.

    It is told by the first bytes, with which no record begins: names change while logs turn over.
    """
    head = os.pread(descriptor, _HEADER.size, 0)
    if not head.startswith(_MAGIC):
        return None
    if len(head) < _HEADER.size:
        return 0
    _, _, flags, _, _, _, extra, name, size, inode = _HEADER.unpack(head)
    known: bool = (flags, extra, name, size) == (_HAS_EXTRA, 12, _NAME, 8)
    return inode if known else 0


def decompress(descriptor: int) -> Iterator[bytes]:
    """What was packed, in blocks of at most 64 KiB; of a damaged file what comes before."""
    inflate = zlib.decompressobj(_GZIP)
    offset = 0
    while not inflate.eof and (piece := os.pread(descriptor, _INPUT, offset)):
        offset += len(piece)
        while piece and not inflate.eof:
            before = inflate.copy()  # a failing call keeps what it had unpacked to itself
            try:
                block = inflate.decompress(piece, _BLOCK)
            except zlib.error:
                yield _salvaged(before, piece)
                return
            piece = inflate.unconsumed_tail
            if block:
                yield block
    if not inflate.eof and (block := inflate.decompress(b"", _BLOCK)):
        yield block


def _salvaged(inflate: zlib._Decompress, piece: bytes) -> bytes:
    """What ``piece`` gives before the byte that is wrong."""
    found = b""
    try:
        for byte in piece:
            found += inflate.decompress(bytes((byte,)), _BLOCK)
    except zlib.error:
        pass
    return found
