"""The compiled modules of this command in one file, found without a search.

An import looks through directories, compares times and opens a file; for the 150 modules of ``run``
that is 7 ms. ``scripts/setup`` writes all of their code into one archive
(:mod:`jaula.oci.build_pyc_archive`). A module is taken from it while its source has the time and size that
it had then, as with the interpreter's own ``__pycache__``; else, and without an archive, it is
imported as ever.
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
        """Where a module is; on disk a plain tuple. ``places`` are a package's directories."""

        file: str
        mtime: int  # nanoseconds
        size: int  # bytes of the source
        places: list[str] | None
        start: int  # of its code, in bytes after the index
        end: int


NAME = f"jaula-runtime.{sys.implementation.cache_tag}.codes"


def place() -> str:
    """The archive's path: beside the compiled modules of this package."""
    return f"{__file__.rpartition('/')[0]}/__pycache__/{NAME}"


def install() -> None:
    """Take modules from the archive from now on, if there is one for this interpreter."""
    try:
        fd = posix.open(place(), posix.O_RDONLY | posix.O_CLOEXEC)
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
    if _is_ours(index):
        sys.meta_path.insert(0, ArchiveFinder(index, data, 8 + length))


def _is_ours(index: dict[str, Entry]) -> bool:
    """Whether an archive is of this tree; the copy of a tree brings that of the other along."""
    try:
        theirs, ours = posix.stat(index[__name__][0]), posix.stat(__file__)
    except (KeyError, OSError):
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


class ArchiveFinder:
    """Finds and loads what is in the archive; a member of ``sys.meta_path``."""

    def __init__(self, index: dict[str, Entry], data: bytes, first: int) -> None:
        self._index = index
        self._codes = memoryview(data)[first:]

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        entry = self._index.get(name)
        if entry is None:
            return None
        file, mtime, size, places, _, _ = entry
        try:
            facts = posix.stat(file)
        except OSError:
            return None
        if facts.st_mtime_ns != mtime or facts.st_size != size:
            return None
        spec = ModuleSpec(
            name,
            self,  # type: ignore[arg-type] # importlib.abc would be an import more
            origin=file,
            is_package=places is not None,
        )
        spec.submodule_search_locations = places
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """As the interpreter does it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        entry = self._index[module.__name__]
        exec(  # noqa: S102 - this is what a loader is for
            marshal.loads(self._codes[entry[4] : entry[5]]), module.__dict__
        )
