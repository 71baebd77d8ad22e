"""How a container's root file system is made: the value that joins storage and runtime.

A storage driver answers with one of these; the runtime turns it into a detached mount. Nothing is
mounted in a namespace of the host's, so nothing can be left behind.
"""

from __future__ import annotations

import msgspec


class OverlayRoot(msgspec.Struct, frozen=True, tag="overlay"):
    """An overlay of read-only layers below a writable directory.

    ``lowers`` are ordered from the topmost layer to the base, as overlayfs orders ``lowerdir``.
    All paths are absolute host paths that the engine made. ``upper`` and ``work`` are None for a
    read-only view. ``id_mapped`` is as for :class:`DirectoryRoot`. ``user_xattr`` says that
    overlayfs's own attributes are of the user namespace (``user.overlay.*``), since those of the
    other kind are the host root's. ``volatile`` says that nothing is ever forced to the disk,
    neither by a program nor when it is unmounted; such an upper directory is mounted once.
    """

    lowers: tuple[str, ...]
    upper: str | None = None
    work: str | None = None
    id_mapped: bool = True
    user_xattr: bool = False
    volatile: bool = False

    @property
    def options(self) -> tuple[tuple[str, str | None], ...]:
        """Further options of the mount; None: a flag."""
        flags = (("userxattr", self.user_xattr), ("volatile", self.volatile and bool(self.upper)))
        return tuple((name, None) for name, wanted in flags if wanted)


class DirectoryRoot(msgspec.Struct, frozen=True, tag="directory"):
    """A plain directory (or subvolume) that holds the whole file system.

    ``id_mapped`` shows its files' owners as ids inside the container's user namespace; false leaves
    them the host's ids.
    """

    path: str
    id_mapped: bool = True


RootSource = OverlayRoot | DirectoryRoot
