"""The compiled modules of ``jaula-runtime`` in one file, loaded without a search.

An import searches directories, compares times and opens a file; for the 150 modules of ``run`` that
is 7 ms. ``scripts/setup`` writes their code into one archive (:mod:`jaula.oci.build_pyc_archive`).
A module is taken from it if its source still has the recorded time and size, as with the
interpreter's own ``__pycache__``. Otherwise, and without an archive, it is imported as usual.
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NamedTuple

    class Entry(NamedTuple):
        """The location of a module's code; a plain tuple on disk.

        ``package_path`` are the directories of a package.
        """

        file: str
        mtime: int  # nanoseconds
        size: int  # bytes of the source
        package_path: list[str] | None
        start: int  # of its code, in bytes after the index
        end: int


NAME = f"jaula-runtime.{sys.implementation.cache_tag}.codes"


def archive_path() -> str:
    """Return the archive's path, beside the compiled modules of this package."""
    return f"{__file__.rpartition('/')[0]}/__pycache__/{NAME}"


def install() -> None:
    """Load modules from the archive from now on, if there is one for this interpreter."""
    try:
        fd = posix.open(archive_path(), posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        data = posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)
    magic, length = data[:4], int.from_bytes(data[4:8], "little")
    if magic != MAGIC_NUMBER:
        return
    index = marshal.loads(data[8 : 8 + length])
    if _is_own_archive(index):
        sys.meta_path.insert(0, ArchiveFinder(index, data, 8 + length))


def _is_own_archive(index: dict[str, Entry]) -> bool:
    """Return whether an archive belongs to this tree; a copied tree has the other's."""
    try:
        archived, own = posix.stat(index[__name__][0]), posix.stat(__file__)
    except (KeyError, OSError):
        return False
    return (archived.st_dev, archived.st_ino) == (own.st_dev, own.st_ino)


class ArchiveFinder:
    """Finder and loader of the modules in the archive; a member of ``sys.meta_path``."""

    def __init__(self, index: dict[str, Entry], data: bytes, first: int) -> None:
        self._index = index
        self._code = memoryview(data)[first:]

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find a module; see importlib.abc.MetaPathFinder."""
        entry = self._index.get(name)
        if entry is None:
            return None
        file, mtime, size, package_path, _, _ = entry
        try:
            st = posix.stat(file)
        except OSError:
            return None
        if st.st_mtime_ns != mtime or st.st_size != size:
            return None
        spec = ModuleSpec(
            name,
            self,  # type: ignore[arg-type] # importlib.abc would be an import more
            origin=file,
            is_package=package_path is not None,
        )
        spec.submodule_search_locations = package_path
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the interpreter's default."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        entry = self._index[module.__name__]
        exec(  # noqa: S102 - a loader executes code
            marshal.loads(self._code[entry[4] : entry[5]]), module.__dict__
        )
