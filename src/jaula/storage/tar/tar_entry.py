"""A member of a tar archive, shared by reader and writer.

Follows POSIX.1-2017 (``ustar`` interchange format) for the types. The module imports nothing,
because commands of the client that only write archives load it at start-up.
"""

from __future__ import annotations

BLOCK = 512  # bytes

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"


class TarEntry:
    """One member of an archive. ``name`` is unmodified. ``mtime`` is in nanoseconds."""

    __slots__ = (
        "gid",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.name = b""
        self.link = b""
        self.type = REGULAR
        self.mode = self.uid = self.gid = self.size = self.mtime = self.major = self.minor = 0
        self.xattrs: dict[str, bytes] = {}


def quote_name(name: bytes) -> str:
    """Return a name quoted for a message: printable and short."""
    text = name[:200].decode(errors="backslashreplace")
    return repr(text if len(name) <= 200 else text + "...")
