"""The mount table of a process: proc_pid_mountinfo(5)."""

from __future__ import annotations

import msgspec


class MountInfo(msgspec.Struct, frozen=True):
    """One mount; paths are as the process sees them."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: frozenset[str]
    propagation: tuple[str, ...]  # shared:N, master:N, propagate_from:N, unbindable
    fstype: str
    source: str
    super_options: frozenset[str]


def parse(text: str) -> tuple[MountInfo, ...]:
    """Return every mount in the kernel's order.

    :raises ValueError: when a line is malformed.
    """
    found = []
    for line in text.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if not separator or len(fields) < 6 or len(rest) < 3:
            raise ValueError(f"not a line of mountinfo: {line[:120]!r}")
        found.append(
            MountInfo(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                device=fields[2],
                root=unescape(fields[3]),
                target=unescape(fields[4]),
                options=frozenset(fields[5].split(",")),
                propagation=tuple(fields[6:]),
                fstype=rest[0],
                source=unescape(rest[1]),
                super_options=frozenset(rest[2].split(",")),
            )
        )
    return tuple(found)


def unescape(path: str) -> str:
    """Undo the octal escapes of blanks, newlines and backslashes."""
    pieces = path.split("\\")
    out = [pieces[0]]
    for piece in pieces[1:]:
        code = piece[:3]
        if len(code) == 3 and not code.strip("01234567"):
            out.append(chr(int(code, 8)) + piece[3:])
        else:
            out.append("\\" + piece)
    return "".join(out)


def top(mounts: tuple[MountInfo, ...], target: str) -> MountInfo | None:
    """Return the visible mount at exactly ``target``, which is the last one there, or None."""
    for mount in reversed(mounts):
        if mount.target == target:
            return mount
    return None
