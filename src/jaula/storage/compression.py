"""Compressed streams: recognised by their first bytes, read as plain ones.

gzip through isal (twice zlib's speed), zstd through ``backports.zstd`` (the standard library's
``compression.zstd`` is the same module), bzip2 and xz through the standard library. The memory that
an xz or zstd stream may ask for is bounded; the output is bounded by who reads it.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, cast

from jaula.errors import InvalidRequest

_XZ_MEMORY = 256 << 20  # bytes
_ZSTD_WINDOW_LOG = 27  # 128 MiB, what `zstd -d` accepts without being asked for more
_CHUNK = 1 << 18


class Source(Protocol):
    """What is needed of a compressed stream."""

    def read(self, size: int, /) -> bytes: ...


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


MAGIC_LENGTH = 6


def detect_compression(head: bytes) -> Compression:
    """The compression of a stream that starts with ``head`` (six bytes suffice)."""
    if head.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Compression.ZSTD
    if head.startswith(b"BZh"):
        return Compression.BZIP2
    if head.startswith(b"\xfd7zXZ\0"):
        return Compression.XZ
    return Compression.NONE


class PrefixedStream(io.RawIOBase):
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, source: Source) -> None:
        self._head = head
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._head
        if data:
            self._head = data[len(buffer) :]
            data = data[: len(buffer)]
        else:
            data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Decompressor(Protocol):
    """The shape that bz2, lzma and zstd decompressors share (and isal's, with another name)."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class DecompressedStream(io.RawIOBase):
    """The plain bytes of a compressed stream, which may consist of several members."""

    def __init__(
        self, source: PrefixedStream, make: Callable[[], _Decompressor], damage: type[Exception]
    ) -> None:
        self._source = source
        self._make = make
        self._damage = damage
        self._decompressor = make()
        self._input = memoryview(bytearray(_CHUNK))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._next(len(buffer))
        except (self._damage, EOFError, MemoryError) as error:
            raise InvalidRequest(f"the archive's compressed data is damaged: {error}") from error
        buffer[: len(data)] = data
        return len(data)

    def _next(self, limit: int) -> bytes:
        while True:
            compressed = b""
            if self._decompressor.eof:
                compressed = self._decompressor.unused_data or self._more()
                if not compressed or not compressed.strip(b"\0"):
                    return b""  # the end, or padding after it
                self._decompressor = self._make()
            elif self._decompressor.needs_input:
                compressed = self._more()
                if not compressed:
                    raise EOFError("it ends too early")
            data = self._decompressor.decompress(compressed, limit)
            if data:
                return data

    def _more(self) -> bytes:
        return bytes(self._input[: self._source.readinto(self._input)])


def decompress_stream(source: Source) -> tuple[io.RawIOBase, Compression]:
    """``source`` as a stream of plain bytes, and what it was compressed with."""
    head = b""
    while len(head) < MAGIC_LENGTH and (more := source.read(MAGIC_LENGTH - len(head))):
        head += more
    kind = detect_compression(head)
    stream = PrefixedStream(head, source)
    if kind is Compression.NONE:
        return stream, kind
    make, damage = _decompressor(kind)
    return DecompressedStream(stream, make, damage), kind


def _decompressor(kind: Compression) -> tuple[Callable[[], _Decompressor], type[Exception]]:
    """Modules are imported when they are needed: an engine that only runs containers needs none."""
    if kind is Compression.GZIP:
        from isal import igzip_lib

        return _gzip, cast(type[Exception], igzip_lib.error)
    if kind is Compression.ZSTD:
        return _zstd, _zstd_module().ZstdError
    if kind is Compression.BZIP2:
        import bz2

        return bz2.BZ2Decompressor, OSError
    import lzma

    return _xz, lzma.LZMAError


def _gzip() -> _Decompressor:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _zstd_module() -> Any:
    """The same module under its two names: in the standard library from Python 3.14 on."""
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd")
    return importlib.import_module("backports.zstd")


def _zstd() -> _Decompressor:
    module = _zstd_module()
    options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return cast(_Decompressor, module.ZstdDecompressor(options=options))


def _xz() -> _Decompressor:
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
