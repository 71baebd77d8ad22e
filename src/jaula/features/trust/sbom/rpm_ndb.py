"""rpm's database of the kind ndb (``Packages.db``), which SUSE uses. Pure.

Source: rpm's ``lib/backend/ndb/rpmpkg.c``. Pages of slots state the location of each package's
header in blocks of sixteen bytes. The first two slots are the header of the file. Numbers are
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from jaula.errors import InvalidRequest

_PAGE, _SLOT, _BLOCK = 4096, 16, 16  # bytes
_HEADER_SLOTS = 2
_MAGIC, _SLOT_MAGIC, _BLOB_MAGIC = b"RpmP", b"Slot", b"BlbS"


def blobs(data: bytes, path: str) -> Iterator[bytes]:
    """Yield the packages' headers. ``path`` names the file in errors.

    :raises InvalidRequest: if the file is damaged.
    """
    try:
        magic, version, _, pages = struct.unpack_from("<4sIII", data)
        if magic != _MAGIC or version != 0 or pages * _PAGE > len(data):
            raise InvalidRequest(f"{path} is not a package database")
        for number in range(_HEADER_SLOTS, pages * _PAGE // _SLOT):
            magic, package, offset, count = struct.unpack_from("<4sIII", data, number * _SLOT)
            if magic != _SLOT_MAGIC:
                raise InvalidRequest(f"{path} is damaged: slot {number} is not valid")
            if package:
                yield _blob(data, package, offset * _BLOCK, count * _BLOCK, path)
    except struct.error as error:
        raise InvalidRequest(f"{path} is damaged: {error}") from None


def _blob(data: bytes, package: int, offset: int, available: int, path: str) -> bytes:
    magic, index, _, size = struct.unpack_from("<4sIII", data, offset)
    start = offset + 16
    if magic != _BLOB_MAGIC or index != package or size > available or start + size > len(data):
        raise InvalidRequest(f"{path} is damaged: package {package} is not at its offset")
    return data[start : start + size]
