"""Detect and decompress compressed streams.

The first bytes of a stream decide. gzip uses isal (twice zlib's speed). zstd uses
``backports.zstd`` (the standard library's ``compression.zstd`` is the same module). bzip2 and xz
use the standard library. The memory of an xz or zstd decoder is limited. The caller limits the
output.
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
_ZSTD_WINDOW_LOG = 27  # 128 MiB, the default limit of `zstd -d`
_CHUNK = 1 << 18  # bytes


class Source(Protocol):
    """A readable stream."""

    def read(self, size: int, /) -> bytes: ...


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


MAGIC_LENGTH = 262
_TAR_MAGIC = slice(257, 262)  # POSIX.1-1988, and GNU's own format


def detect_compression(head: bytes) -> Compression:
    """Return the compression of a stream that starts with ``head``, its first MAGIC_LENGTH bytes.

    A plain tar begins with the name of its first entry, which may be any other magic.
    """
    if head[_TAR_MAGIC] == b"ustar":
        return Compression.NONE
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
    """A stream whose first bytes were read before."""

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
    """The interface that the decompressors of bz2, lzma, zstd and isal share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class DecompressedStream(io.RawIOBase):
    """The decompressed bytes of a stream, which may have several members."""

    def __init__(
        self,
        source: PrefixedStream,
        factory: Callable[[], _Decompressor],
        error_type: type[Exception],
    ) -> None:
        self._source = source
        self._factory = factory
        self._error_type = error_type
        self._decompressor = factory()
        self._input = memoryview(bytearray(_CHUNK))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._next(len(buffer))
        except (self._error_type, EOFError, MemoryError) as error:
            raise InvalidRequest(f"the archive's compressed data is damaged: {error}") from error
        buffer[: len(data)] = data
        return len(data)

    def _next(self, limit: int) -> bytes:
        while True:
            compressed = b""
            if self._decompressor.eof:
                compressed = self._decompressor.unused_data or self._read()
                if not compressed or not compressed.strip(b"\0"):
                    return b""  # the end, or padding after it
                self._decompressor = self._factory()
            elif self._decompressor.needs_input:
                compressed = self._read()
                if not compressed:
                    raise EOFError("unexpected end of data")
            data = self._decompressor.decompress(compressed, limit)
            if data:
                return data

    def _read(self) -> bytes:
        return bytes(self._input[: self._source.readinto(self._input)])


def read_head(source: Source) -> bytes:
    """Return the first MAGIC_LENGTH bytes of a stream, fewer if it is shorter."""
    head = b""
    while len(head) < MAGIC_LENGTH and (chunk := source.read(MAGIC_LENGTH - len(head))):
        head += chunk
    return head


def decompress_stream(source: Source) -> tuple[io.RawIOBase, Compression]:
    """Return ``source`` as a stream of decompressed bytes, and its compression.

    The bytes of a stranger are decompressed in a process of their own instead
    (:mod:`jaula.storage.decompressor`).
    """
    head = read_head(source)
    kind = detect_compression(head)
    stream = PrefixedStream(head, source)
    if kind is Compression.NONE:
        return stream, kind
    factory, error_type = _decompressor(kind)
    return DecompressedStream(stream, factory, error_type), kind


def _decompressor(kind: Compression) -> tuple[Callable[[], _Decompressor], type[Exception]]:
    """Return the factory and the error type of a decompressor.

    Modules are imported on demand, because an engine that only runs containers needs none.
    """
    if kind is Compression.GZIP:
        from isal import igzip_lib

        return _gzip, cast(type[Exception], igzip_lib.error)
    if kind is Compression.ZSTD:
        return _zstd, zstd_module().ZstdError
    if kind is Compression.BZIP2:
        import bz2

        return bz2.BZ2Decompressor, OSError
    import lzma

    return _xz, lzma.LZMAError


def _gzip() -> _Decompressor:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def zstd_module() -> Any:
    """Return the zstd module, which is in the standard library from Python 3.14 on."""
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd")
    return importlib.import_module("backports.zstd")


def _zstd() -> _Decompressor:
    module = zstd_module()
    options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return cast(_Decompressor, module.ZstdDecompressor(options=options))


def _xz() -> _Decompressor:
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
