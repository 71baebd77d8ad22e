"""The line of a hosts file that stands for a legacy link: made, given another address, taken out.

Follows Docker: address, tab, alias, the other's host name, and its name unless that is the alias.
What is read back may have been written by a container: bytes, of any kind. Only the first line that
begins with the wanted names behind its address is a link's. Pure; who writes the file is left to
the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaula.errors import InvalidRequest
from jaula.network.etc_files import is_name


def link_line(address: str, alias: str, hostname: str, name: str) -> str:
    """The line with its end.

    :raises InvalidRequest: the alias could not stand in a hosts file.
    """
    if not is_name(alias):
        raise InvalidRequest(
            f"invalid alias in link: {alias!r}", hint="letters, digits, dots, dashes, underscores"
        )
    names = (alias, hostname) if name == alias else (alias, hostname, name)
    return f"{address}\t{' '.join(names)}\n"


def set_link_address(text: bytes, names: Sequence[str], address: str) -> bytes:
    """The file with another address in the link's line; without one it is as it was."""
    before, found, after = _split(text, names)
    _, tab, rest = found.partition(b"\t")
    return before + address.encode() + tab + rest + after if found else text


def remove_link_line(text: bytes, names: Sequence[str]) -> bytes:
    """The file without the link's line."""
    before, _, after = _split(text, names)
    return before + after


def _split(text: bytes, names: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """What is before the link's line, the line with its end, and what is after it."""
    wanted = [name.encode() for name in names]
    start = 0
    for found in text.splitlines(keepends=True):
        _, tab, rest = found.partition(b"\t")
        if tab and rest.split()[: len(wanted)] == wanted:
            return text[:start], found, text[start + len(found) :]
        start += len(found)
    return text, b"", b""
