"""Texts of ``Name: value`` lines: dpkg's status and Python's metadata. Pure.

Source: deb822(5). A line that begins with white space goes on with the value before it; an empty
line ends a stanza.
"""

from __future__ import annotations

from collections.abc import Iterator

Stanza = dict[str, str]


def read(data: bytes) -> Iterator[Stanza]:
    """Every stanza; names in lower case, the first of two equal ones counts."""
    found: Stanza = {}
    name = ""
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line.strip():
            if found:
                yield found
            found, name = {}, ""
        elif line[0] in " \t":
            if name:
                found[name] += "\n" + line.strip()
        else:
            name, colon, value = line.partition(":")
            name = name.strip().lower()
            if not colon or name in found:
                name = ""
                continue
            found[name] = value.strip()
    if found:
        yield found
