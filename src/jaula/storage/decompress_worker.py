"""Decompress a stream in a sandboxed process. :mod:`jaula.storage.decompressor` starts it.

The module imports all formats, since the process cannot open a file later.
"""

from __future__ import annotations

import bz2
import lzma
import os
from collections.abc import Callable
from io import FileIO

from isal import igzip_lib

from jaula.storage.compression import decompress_stream, zstd_module

FORMATS = (igzip_lib, zstd_module(), bz2, lzma)
_CHUNK = 1 << 18  # bytes


def decompress(
    payload: bytes, descriptors: list[int], ask: Callable[[bytes], tuple[bytes, list[int]]]
) -> bytes:
    """Decompress one pipe into another. Runs in the sandboxed process."""
    source, sink = descriptors
    stream, _ = decompress_stream(FileIO(source, closefd=False))
    buffer = memoryview(bytearray(_CHUNK))
    while count := stream.readinto(buffer) or 0:
        data = buffer[:count]
        while data:
            data = data[os.write(sink, data) :]
    return b""
