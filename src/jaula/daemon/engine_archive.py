"""The compiled modules of an engine in one file, without what an engine does not use of them.

:mod:`jaula.daemon.build_pyc_archive` writes the archive of an idle engine's modules.
The code has no docstrings, no annotations of functions, and no columns of source lines. That is a
fifth of its memory. Assertions stay. A module is taken from the archive if its source still has the
recorded time and size, and is in a directory of ``sys.path`` or of its package. Otherwise, and
without an archive, it is imported as usual.

No descriptor stays open, since the zygote and the shims close those that they do not know.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, ModuleType
    from typing import Any

    from jaula.oci.pyc_archive import Entry

    Index = tuple[dict[str, Entry], list[tuple[int, int]]]
    """Entries by name, first and last byte of each module in the file."""

NAME = f"jaula-engine.{sys.implementation.cache_tag}.modules"
_HEAD = 8  # bytes: the magic number, the size of the index


def archive_path() -> str:
    """Return the archive's path, beside the compiled modules of this package."""
    return f"{os.path.dirname(__file__)}/__pycache__/{NAME}"


def install() -> None:
    """Import modules from the archive from now on, if there is one for this interpreter."""
    finder = ArchiveFinder(archive_path())
    if finder.is_usable():
        sys.meta_path.insert(0, finder)


def release() -> None:
    """Release the index of the archive until a module is imported again."""
    for finder in sys.meta_path:
        if isinstance(finder, ArchiveFinder):
            finder.release()


class ArchiveFinder:
    """Finder of the modules in the archive at ``path``; a member of ``sys.meta_path``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, ...] = ()
        self._index: Index | None = None

    def is_usable(self) -> bool:
        """Return whether there is an archive for this interpreter and this tree."""
        fd = self._open()
        if fd < 0:
            return False
        try:
            entry = self._load(fd)[0].get(__name__)
            return entry is not None and _is_current(entry)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Release the index."""
        self._index = None

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Find a module; see importlib.abc.MetaPathFinder."""
        if self._index is not None and name not in self._index[0]:
            return None
        fd = self._open()
        if fd < 0:
            return None
        try:
            entries, bounds = self._load(fd)
            entry = entries.get(name)
            if entry is None or not _is_found(entry, path) or not _is_current(entry):
                return None
            start, end = bounds[entry[4]]
            code = marshal.loads(os.pread(fd, end - start, start))[entry[5]]
        finally:
            os.close(fd)
        file, package_path = entry[0], entry[3]
        loader: Any = Loader(code)
        spec = ModuleSpec(name, loader, origin=file, is_package=package_path is not None)
        spec.submodule_search_locations = package_path
        spec.has_location = True
        return spec

    def _open(self) -> int:
        """Return a descriptor of the archive; -1 if it is absent, or was replaced meanwhile."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1
        st = os.fstat(fd)
        identity = st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns
        if self._identity in ((), identity) and st.st_size >= _HEAD:
            self._identity = identity
            return fd
        os.close(fd)
        return -1

    def _load(self, fd: int) -> Index:
        if self._index is None:
            head = os.pread(fd, _HEAD, 0)
            if head[:4] != MAGIC_NUMBER:
                return {}, []
            size = int.from_bytes(head[4:], "little")
            entries, bounds, _ = marshal.loads(os.pread(fd, size, _HEAD))
            first = _HEAD + size
            self._index = entries, [(first + start, first + end) for start, end in bounds]
        return self._index


def _is_found(entry: Entry, path: Iterable[str] | None) -> bool:
    """Return whether an import as usual would look for a module in this place.

    A copy of the tree has an archive that names the modules of the former one.
    """
    directory = os.path.dirname(entry[0])
    if entry[3] is not None:
        directory = os.path.dirname(directory)
    return directory in (sys.path if path is None else path)


def _is_current(entry: Entry) -> bool:
    """Return whether the source of a module is the one that was compiled."""
    try:
        st = os.stat(entry[0])
    except OSError:
        return False
    return (st.st_mtime_ns, st.st_size) == (entry[1], entry[2])


class Loader:
    """Loader of one module from the archive."""

    def __init__(self, code: CodeType) -> None:
        self._code: CodeType | None = code

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the interpreter's default."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, which is needed once."""
        code, self._code = self._code, None
        if code is None:
            raise ImportError("a module of the archive is loaded once", name=module.__name__)
        exec(code, module.__dict__)  # noqa: S102 - a loader executes code
