"""binfmt_misc: the interpreters that the kernel runs for programs of other machines.

Source: Linux ``Documentation/admin-guide/binfmt-misc.rst``. A file for each handler has lines such
as ``enabled``, ``flags: OCF``, ``offset 0``, ``magic 7f454c46...`` and ``mask ffffffff...``.

Facts about flags: with ``F`` the kernel has opened the interpreter when it was registered, so it is
found from any root directory. Without it, the interpreter must exist in the container.
"""

from __future__ import annotations

import os
from typing import NamedTuple

DIRECTORY = "/proc/sys/fs/binfmt_misc"
_CONTROLS = frozenset({"register", "status"})


class Handler(NamedTuple):
    """One registered interpreter; ``fixed`` is its flag F."""

    offset: int
    magic: bytes
    mask: bytes
    fixed: bool

    def matches(self, header: bytes) -> bool:
        """Return whether a program with this beginning is run by the interpreter."""
        part = header[self.offset : self.offset + len(self.magic)]
        return len(part) == len(self.magic) and all(
            ours & mask == theirs & mask
            for ours, mask, theirs in zip(self.magic, self.mask, part, strict=True)
        )


def handlers(directory: str = DIRECTORY) -> list[Handler]:
    """Return the enabled handlers; none if the file system is not mounted."""
    found = []
    try:
        names = os.listdir(directory)
        if "status" in names and _read(directory, "status").strip() == "disabled":
            return []
    except OSError:
        return []
    for name in names:
        if name in _CONTROLS:
            continue
        try:
            handler = parse(_read(directory, name))
        except OSError:
            continue  # it was removed meanwhile
        if handler is not None:
            found.append(handler)
    return found


def _read(directory: str, name: str) -> str:
    with open(f"{directory}/{name}", encoding="ascii", errors="replace") as file:
        return file.read(4096)


def parse(text: str) -> Handler | None:
    """Return a handler from its file; None if it is disabled, or matches by a file's name. Pure."""
    lines = text.splitlines()
    fields = dict(line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)
    if "enabled" not in lines or "magic" not in fields:
        return None
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields.get("mask", "ff" * len(magic)))
        offset = int(fields.get("offset", "0"))
    except ValueError:
        return None
    if len(mask) != len(magic):
        return None
    return Handler(offset, magic, mask, "F" in fields.get("flags:", ""))
