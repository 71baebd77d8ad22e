"""rpm's database of the kind ndb (``Packages.db``), which SUSE's systems have. Pure.

Source: rpm's ``lib/backend/ndb/rpmpkg.c``. Pages of slots, the first two of which are the file's
own header, say where each package's header lies, in blocks of sixteen bytes. Numbers are
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from jaula.errors import InvalidRequest

_PAGE, _SLOT, _BLOCK = 4096, 16, 16  # bytes
_HEADER_SLOTS = 2
_MAGIC, _SLOT_MAGIC, _BLOB_MAGIC = b"RpmP", b"Slot", b"BlbS"


def blobs(data: bytes, place: str) -> Iterator[bytes]:
    """The packages' headers. Raises :class:`InvalidRequest` for a file that is damaged."""
    try:
        magic, version, _, pages = struct.unpack_from("<4sIII", data)
        if magic != _MAGIC or version != 0 or pages * _PAGE > len(data):
            raise InvalidRequest(f"{place} is no database of packages")
        for number in range(_HEADER_SLOTS, pages * _PAGE // _SLOT):
            magic, package, offset, count = struct.unpack_from("<4sIII", data, number * _SLOT)
            if magic != _SLOT_MAGIC:
                raise InvalidRequest(f"{place} is damaged: slot {number} is none")
            if package:
                yield _blob(data, package, offset * _BLOCK, count * _BLOCK, place)
    except struct.error as error:
        raise InvalidRequest(f"{place} is damaged: {error}") from None


def _blob(data: bytes, package: int, offset: int, room: int, place: str) -> bytes:
    magic, index, _, size = struct.unpack_from("<4sIII", data, offset)
    start = offset + 16
    if magic != _BLOB_MAGIC or index != package or size > room or start + size > len(data):
        raise InvalidRequest(f"{place} is damaged: package {package} is not where it should be")
    return data[start : start + size]
