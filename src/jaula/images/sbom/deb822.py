"""Parse stanzas of ``Name: value`` lines: dpkg's status and Python's metadata. Pure.

Source: deb822(5). A line that starts with white space continues the value before it. An empty line
ends a stanza.
"""

from __future__ import annotations

from collections.abc import Iterator

Stanza = dict[str, str]


def read(data: bytes) -> Iterator[Stanza]:
    """Yield every stanza. Names are in lower case; the first of duplicate fields counts."""
    stanza: Stanza = {}
    name = ""
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line.strip():
            if stanza:
                yield stanza
            stanza, name = {}, ""
        elif line[0] in " \t":
            if name:
                stanza[name] += "\n" + line.strip()
        else:
            name, colon, value = line.partition(":")
            name = name.strip().lower()
            if not colon or name in stanza:
                name = ""
                continue
            stanza[name] = value.strip()
    if stanza:
        yield stanza
