"""Parse stanzas of ``Name: value`` lines: dpkg's status and Python's metadata. Pure.

Source: deb822(5). A line that starts with white space continues the value before it. An empty line
ends a stanza.

Time and memory are linear in the data: one stanza is decoded at a time, and no value is longer than
:data:`MAX_VALUE`, which no field of a list of packages needs.
"""

from __future__ import annotations

from collections.abc import Iterator

Stanza = dict[str, str]

MAX_VALUE = 8 << 10
"""Bytes of a value; the rest of a longer one is dropped."""
MAX_FIELDS = 512
"""Fields of a stanza; more are dropped."""


def read(data: bytes) -> Iterator[Stanza]:
    """Yield every stanza. Names are in lower case; the first of duplicate fields counts."""
    fields: dict[bytes, list[bytes]] = {}
    value: list[bytes] | None = None
    length = 0
    for line in lines(data):
        if not line or line.isspace():
            if fields:
                yield _stanza(fields)
            fields, value = {}, None
        elif line[:1] in (b" ", b"\t"):
            if value is not None and length < MAX_VALUE:
                value.append(line.strip()[: MAX_VALUE - length])
                length += len(value[-1]) + 1
        else:
            name, colon, text = line.partition(b":")
            name = name.strip().lower()
            value = None
            if colon and name not in fields and len(fields) < MAX_FIELDS and len(name) < 256:
                value = fields[name] = [text[:MAX_VALUE].strip()]
                length = len(value[0]) + 1
    if fields:
        yield _stanza(fields)


def _stanza(fields: dict[bytes, list[bytes]]) -> Stanza:
    return {
        name.decode("utf-8", "replace").lower(): b"\n".join(values).decode("utf-8", "replace")
        for name, values in fields.items()
    }


def lines(data: bytes) -> Iterator[bytes]:
    """Yield the lines, one in memory at a time."""
    begin = 0
    while (end := data.find(b"\n", begin)) >= 0:
        yield data[begin:end]
        begin = end + 1
    yield data[begin:]
