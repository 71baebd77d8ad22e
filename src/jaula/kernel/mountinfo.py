"""The mount table of a process: proc_pid_mountinfo(5).

Facts about the format: the kernel escapes blank, tab, newline and backslash in paths (``mangle`` in
fs/proc_namespace.c) and nothing else. A mount point may hold ``\\r``, form feeds and what Unicode
counts as a line end, so a line ends at ``\\n`` alone. Some file systems write blanks into their own
options, which are the last field.
"""

from __future__ import annotations

import errno
import os

import msgspec

OWN = "/proc/self/mountinfo"


class MountInfo(msgspec.Struct, frozen=True):
    """One mount. Paths are as the process sees them."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: frozenset[str]
    propagation: tuple[str, ...]  # shared:N, master:N, propagate_from:N, unbindable
    fstype: str
    source: str
    super_options: tuple[str, ...]


def read(
    path: str = OWN, *, errors: str = "surrogateescape", limit: int = -1
) -> tuple[MountInfo, ...]:
    """Return the mounts in a file, at most ``limit`` bytes of it.

    ``errors`` says what becomes of bytes that are not UTF-8.

    :raises ProcessLookupError: the process is exiting, or a zombie.
    :raises OSError: the file cannot be read.
    :raises ValueError: when a line is malformed.
    """
    with open(open_fd(path), "rb") as file:
        return parse(file.read(limit).decode("utf-8", errors))


def open_fd(path: str = OWN) -> int:
    """Return a descriptor of a mount table, for reading and for poll(2).

    :raises ProcessLookupError: the process is exiting, or a zombie: it has left its mount
        namespace, for which the kernel says EINVAL (``mounts_open_common`` in fs/proc_namespace.c).
    :raises OSError: the file cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path) from error


def parse(text: str) -> tuple[MountInfo, ...]:
    """Return the mount of each line, in the kernel's order.

    :raises ValueError: when a line is malformed.
    """
    return tuple(_mount(line) for line in text.split("\n") if line)


def _mount(line: str) -> MountInfo:
    head, separator, tail = line.partition(" - ")
    fields, rest = head.split(" "), tail.split(" ", 2)
    numbers = fields[:2]
    if not separator or len(fields) < 6 or len(rest) < 3 or not all(map(_is_number, numbers)):
        raise ValueError(f"not a line of mountinfo: {line[:120]!r}")
    return MountInfo(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=fields[2],
        root=unescape(fields[3]),
        target=unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        propagation=tuple(fields[6:]),
        fstype=rest[0],
        source=unescape(rest[1]),
        super_options=tuple(rest[2].split(",")),
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12


def unescape(path: str) -> str:
    """Replace the octal escapes of blanks, newlines and backslashes."""
    if "\\" not in path:
        return path
    first, *pieces = path.split("\\")
    out = [first]
    for piece in pieces:
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
