"""Tar-split data: a tar without the contents of its files.

Source: vbatts/tar-split, ``tar/storage/entry.go``. It is a JSON document for each segment of the
tar that is not content, and one for each file with its size and its CRC-64. With the files of an
unpacked layer it gives the tar again, byte for byte. containers/storage verifies the diff id of a
partially pulled layer with it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec

_FILE, _SEGMENT = 1, 2


class TarSplitWriter:
    """Writes the documents to ``sink``."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._position = 0

    def segment(self, data: bytes) -> None:
        """Add the bytes between two contents: padding, headers, the end of the archive."""
        if data:
            self._put(b'{"type":%d,"payload":"%b"' % (_SEGMENT, base64.b64encode(data)))

    def file(self, name: str, size: int, checksum: bytes) -> None:
        """Add an entry of the tar. ``checksum`` is empty if the size is 0."""
        payload = b'"%b"' % base64.b64encode(checksum) if checksum else b"null"
        length = b',"size":%d' % size if size else b""
        head = b'{"type":%d,"name":%b%b' % (_FILE, msgspec.json.encode(name), length)
        self._put(head + b',"payload":' + payload)

    def _put(self, document: bytes) -> None:
        self._sink(document + b',"position":%d}\n' % self._position)
        self._position += 1
