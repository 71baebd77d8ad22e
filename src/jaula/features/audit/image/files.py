"""Files of an image, read from the directories of its layers.

Each layer is read once for all images that have it. Only regular files are opened, below a
descriptor of their directory, without following a link and without blocking; of each the first MiB
is searched. A layer beyond the bounds is an error, not a partial result.

Facts about layers: a higher layer replaces a path, or removes it by a character device 0:0. The
lower layer still has the file, and everyone who has the image can read it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from time import monotonic

import msgspec

from jaula.features.audit.benchmark.images import hides
from jaula.features.audit.image import secrets
from jaula.features.verify.checks.set_user_id import CAPABILITY

MAX_FILES = 2_000_000  # of a layer
MAX_SECONDS = 120  # for a layer
MAX_READ = 1 << 20  # bytes of a file that are searched
MAX_SEARCHED = 2 << 30  # bytes of a layer that are searched
MAX_LISTED = 1000  # paths of one kind
CACHES = (
    "var/lib/apt/lists",
    "var/cache/apt/archives",
    "var/cache/apk",
    "var/cache/dnf",
    "var/cache/yum",
    "var/cache/zypp",
    "var/cache/pacman/pkg",
    "root/.cache/pip",
    "root/.npm",
)
"""Directories that package managers fill while an image is built."""
_SKIPPED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/")
"""Directories of documents, which have examples of secrets."""
_WHITEOUT = 0  # rdev


class LayerFiles(msgspec.Struct, frozen=True):
    """Paths in one layer, relative to its root, at most 1000 of each kind.

    ``secrets`` are (path, kind). ``cached`` is the size of files in :data:`CACHES`, ``size`` of
    all, in bytes.
    """

    tree: str
    set_id: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    caches: tuple[str, ...] = ()
    cached: int = 0
    size: int = 0
    files: int = 0


class LayerReader:
    """Reads layers, each once."""

    def __init__(self) -> None:
        self._layers: dict[str, LayerFiles] = {}

    def read(self, tree: str) -> LayerFiles:
        """Return the files of a layer.

        :raises OSError: when it cannot be read.
        :raises ValueError: when it is beyond the bounds.
        """
        if tree not in self._layers:
            self._layers[tree] = _read(tree)
        return self._layers[tree]


class _Scan:
    """Counts what is left of the bounds of one layer."""

    def __init__(self, tree: str) -> None:
        self.tree = tree
        self.files = self.size = self.cached = 0
        self.searched = 0
        self.ends = monotonic() + MAX_SECONDS
        self.lists: dict[str, list[str]] = {}
        self.secrets: list[tuple[str, str]] = []

    def add(self, kind: str, path: str) -> None:
        paths = self.lists.setdefault(kind, [])
        if len(paths) < MAX_LISTED:
            paths.append(path)

    def count(self) -> None:
        self.files += 1
        if self.files > MAX_FILES:
            raise ValueError(f"a layer has more than {MAX_FILES} files")
        if self.files % 1024 == 0 and monotonic() > self.ends:
            raise ValueError(f"a layer takes longer than {MAX_SECONDS} seconds")


def _read(tree: str) -> LayerFiles:
    scan = _Scan(tree)
    for directory, names, others, fd in os.fwalk(tree, follow_symlinks=False):
        below = directory.removeprefix(tree).strip("/")
        for name in names:
            scan.count()
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            path = f"{below}/{name}".lstrip("/")
            if stat.S_ISDIR(status.st_mode) and _is_writable(status.st_mode):
                scan.add("writable", path + "/")
        for name in others:
            scan.count()
            path = f"{below}/{name}".lstrip("/")
            _file(scan, fd, name, path, os.stat(name, dir_fd=fd, follow_symlinks=False))
    paths = {kind: tuple(sorted(each)) for kind, each in scan.lists.items()}
    return LayerFiles(
        tree=tree, size=scan.size, files=scan.files, cached=scan.cached,
        secrets=tuple(sorted(scan.secrets)), **paths,
    )  # fmt: skip


def _is_writable(mode: int) -> bool:
    """Return whether every user may write; a sticky directory is for temporary files."""
    return bool(mode & stat.S_IWOTH) and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)


def _file(scan: _Scan, directory: int, name: str, path: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISCHR(mode) and status.st_rdev == _WHITEOUT:
        return
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        if not path.startswith("dev/"):  # the engine mounts another /dev
            scan.add("devices", path)
        return
    if not stat.S_ISREG(mode):
        return
    scan.size += status.st_size
    if mode & (stat.S_ISUID | stat.S_ISGID) and mode & 0o111:
        scan.add("set_id", path)
    if mode & 0o111 and _has_capabilities(directory, name):
        scan.add("capabilities", path)
    if _is_writable(mode):
        scan.add("writable", path)
    if path.startswith(tuple(f"{cache}/" for cache in CACHES)) and status.st_size:
        scan.add("caches", path)
        scan.cached += status.st_size
    if path.startswith(_SKIPPED) or not status.st_size >= 20:
        return
    scan.searched += min(status.st_size, MAX_READ)
    if scan.searched > MAX_SEARCHED:
        raise ValueError(f"a layer has more than {MAX_SEARCHED} bytes that can have secrets")
    if len(scan.secrets) < MAX_LISTED:
        scan.secrets += [(path, kind) for kind in secrets.forms(_head(directory, name))]


def _head(directory: int, name: str) -> bytes:
    """Return the beginning of a regular file; nothing of a program, which has no text."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                 dir_fd=directory)  # fmt: skip
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        data = os.read(fd, 4096)
        if b"\0" in data:
            return b""
        while len(data) < MAX_READ and (more := os.read(fd, MAX_READ - len(data))):
            data += more
        return data
    finally:
        os.close(fd)


def _has_capabilities(directory: int, name: str) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{directory}/{name}", CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT):
            return False
        raise
    return True


class ImageFiles(msgspec.Struct, frozen=True):
    """The files of an image. Paths that a higher layer hides are left out, except of secrets.

    ``secrets`` are (path, kind, whether a higher layer hides it).
    """

    set_id: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str, bool], ...] = ()
    caches: tuple[str, ...] = ()
    cached: int = 0
    size: int = 0
    files: int = 0


def read(trees: Sequence[str], reader: LayerReader) -> ImageFiles:
    """Return the files of an image; ``trees`` are the directories of its layers, lowest first.

    :raises OSError: when a layer cannot be read.
    :raises ValueError: when a layer is beyond the bounds.
    """
    layers = [reader.read(tree) for tree in trees]
    visible: dict[str, set[str]] = {}
    found: list[tuple[str, str, bool]] = []
    for number, layer in enumerate(layers):
        higher = trees[number + 1 :]
        for kind in ("set_id", "capabilities", "writable", "devices", "caches"):
            visible.setdefault(kind, set()).update(_visible(getattr(layer, kind), higher))
        for path, form in layer.secrets:
            found.append((path, form, any(hides(top, path) for top in higher)))
    return ImageFiles(
        **{kind: tuple(sorted(paths)) for kind, paths in visible.items()},
        secrets=tuple(dict.fromkeys(found)),
        cached=sum(layer.cached for layer in layers),
        size=sum(layer.size for layer in layers),
        files=sum(layer.files for layer in layers),
    )


def _visible(paths: Sequence[str], higher: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path.endswith("/"):  # a directory is merged with those above; the topmost mode counts
            if not any(os.path.lexists(f"{top}/{path.rstrip('/')}") for top in higher):
                yield path
        elif not any(hides(top, path) for top in higher):
            yield path
