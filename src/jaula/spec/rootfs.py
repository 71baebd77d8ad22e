"""Sources of a container's root file system: the value that storage passes to the runtime.

A storage driver returns one of these types, and the runtime turns it into a detached mount. Nothing
is mounted in a namespace of the host, so no mount can leak.
"""

from __future__ import annotations

import msgspec


class OverlayRoot(msgspec.Struct, frozen=True, tag="overlay"):
    """An overlay of read-only layers below a writable directory.

    ``lowers`` are ordered from the topmost layer to the base, as in overlayfs ``lowerdir``. All
    paths are absolute host paths that the engine created. ``upper`` and ``work`` are None for a
    read-only view. ``id_mapped`` is as in :class:`DirectoryRoot`. ``user_xattr`` makes overlayfs
    use attributes that a user namespace may set (``user.overlay.*``), because ``trusted.*`` needs
    the host's root. ``volatile`` disables every sync to disk, by programs and at unmount; such an
    upper directory is mounted only once. ``xino`` is for layers on several file systems: all files
    of the root have one device number then, and unique inode numbers of 64 bits.
    """

    lowers: tuple[str, ...]
    upper: str | None = None
    work: str | None = None
    id_mapped: bool = True
    user_xattr: bool = False
    volatile: bool = False
    xino: bool = False

    @property
    def options(self) -> tuple[tuple[str, str | None], ...]:
        """Further mount options; a value of None marks a flag."""
        writable = bool(self.upper)
        options: tuple[tuple[str, str | None, bool], ...] = (
            ("userxattr", None, self.user_xattr),
            ("volatile", None, self.volatile and writable),
            ("xino", "on", self.xino and writable),
        )
        return tuple((name, value) for name, value, enabled in options if enabled)


class DirectoryRoot(msgspec.Struct, frozen=True, tag="directory"):
    """A plain directory (or subvolume) with the whole file system.

    ``id_mapped`` maps the owners of files into the container's user namespace; without it they keep
    the host's ids.
    """

    path: str
    id_mapped: bool = True


RootSource = OverlayRoot | DirectoryRoot
