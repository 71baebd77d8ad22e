"""Parse pax extended headers (POSIX.1-2017, pax, "pax Extended Header"). Pure.

A record overrides a field of the entry's header. The input is hostile.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.storage.tar.tar_entry import TarEntry, quote_name


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """Parse the records of a pax header, ``LENGTH KEY=VALUE\\n``. A later record wins.

    :raises InvalidRequest: when a record is malformed.
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 20)
        digits = data[position:blank] if blank > 0 else b""
        if not digits.isdigit():
            raise InvalidRequest("a pax header has a record without a length")
        end = position + int(digits)
        record = data[blank + 1 : end]
        key, equals, value = record.partition(b"=")
        if (
            end > len(data)
            or end <= blank + 1
            or not equals
            or not value.endswith(b"\n")
            or not key
        ):
            raise InvalidRequest("a pax header has a malformed record")
        records[key] = value[:-1]
        position = end
    return records


def apply_records(entry: TarEntry, records: dict[bytes, bytes]) -> None:
    """Apply records to an entry.

    :raises InvalidRequest: when a value is not valid, or the entry is a sparse file.
    """
    for key, value in records.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            if entry.type in b"12":
                entry.link = value
        elif key == b"size":
            entry.size = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime = parse_time(value)
        elif key.startswith(b"SCHILY.xattr."):
            try:
                entry.xattrs[key[13:].decode()] = value
            except UnicodeDecodeError as error:
                raise InvalidRequest("a pax header names an attribute that is not UTF-8") from error
        elif key.startswith(b"GNU.sparse"):
            raise InvalidRequest(
                f"entry {quote_name(entry.name)} is a sparse file, which layers do not use"
            )


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise InvalidRequest(f"a pax header has {quote_name(value)} as a number")
    return int(value)


def parse_time(value: bytes) -> int:
    """Convert seconds with a fraction of any length, perhaps negative, to nanoseconds."""
    seconds, _, fraction = value.partition(b".")
    negative = seconds.startswith(b"-")
    total = _decimal(seconds.removeprefix(b"-") or b"0") * 1_000_000_000
    if fraction:
        total += _decimal(fraction[:9].ljust(9, b"0"))
    return -total if negative else total
