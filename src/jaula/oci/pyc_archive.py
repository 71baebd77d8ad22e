"""The compiled modules of ``jaula-runtime``, and of the client, each in one file without a search.

An import searches directories, compares times and opens a file, and the import system itself takes
0.1 ms for a module. ``scripts/setup`` writes the code of all modules into one archive
(:mod:`jaula.oci.build_pyc_archive`), with the modules that each command executes, in their
order. The client ``jaula`` has an archive of its own (:mod:`jaula.cli.build_pyc_archive`).
:meth:`ArchiveFinder.load` executes those of one command before they are imported, so that their
import statements find them loaded. Modules of the same commands are one group, which is decoded as
a whole. A module is taken from the archive if its source still has the recorded time and size,
as with the interpreter's own ``__pycache__``. Otherwise, and without an archive, it is imported as
usual.

The compiled form of this module is also the script that the launchers run, since a script in source
form is compiled anew each time. Its name selects the program.

Modules of ``jaula-runtime`` that are not in the order of its command are imported from the archive
too. The client's archive has the modules of frequent commands only, and the same program runs the
engine. So the client imports all other modules as usual, and none of them in part.
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, NamedTuple

    class Entry(NamedTuple):
        """The location of a module's code; a plain tuple on disk.

        ``package_path`` are the directories of a package. ``group`` is -1 for an extension module.
        """

        file: str
        mtime: int  # nanoseconds
        size: int  # bytes of the file
        package_path: list[str] | None
        group: int
        position: int  # in the group

    Index = tuple[dict[str, Entry], list[tuple[int, int]], dict[str, tuple[str, ...]]]
    """Entries by name, first and last byte of each group, modules of each command."""


NAME = f"jaula-runtime.{sys.implementation.cache_tag}.modules"
SCRIPT = "jaula-runtime.pyc"
"""The compiled form of this module, beside the archive."""
CLIENT_NAME = f"jaula.{sys.implementation.cache_tag}.modules"
CLIENT_SCRIPT = "jaula.pyc"
"""Archive and script of the client, in the same directory."""
PARTIAL = frozenset({"collections", "msgspec", "signal", "typing"})
"""Modules that :mod:`jaula.oci.fast_import` loads in part."""


def archive_path() -> str:
    """Return the archive's path, beside the compiled modules of this package."""
    return f"{__file__.rpartition('/')[0]}/__pycache__/{NAME}"


def install() -> ArchiveFinder | None:
    """Import modules from the archive from now on, if there is one for this interpreter."""
    return _install(archive_path(), __file__)


def _install(path: str, own_file: str) -> ArchiveFinder | None:
    """Install the archive at ``path`` if it is that of this interpreter and of ``own_file``."""
    finder = _open(path, own_file)
    if finder is not None:
        sys.meta_path.insert(0, finder)
    return finder


def _open(path: str, own_file: str) -> ArchiveFinder | None:
    """Open the archive at ``path`` if it is that of this interpreter and of ``own_file``."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    head = posix.read(fd, 8)
    length = int.from_bytes(head[4:], "little")
    if head[:4] == MAGIC_NUMBER:
        index = marshal.loads(posix.read(fd, length))
        if _is_own_archive(index[0], own_file):
            return ArchiveFinder(index, fd, 8 + length)
    posix.close(fd)
    return None


def _is_own_archive(entries: dict[str, Entry], own_file: str) -> bool:
    """Return whether an archive belongs to this tree; a copied tree has the other's."""
    try:
        archived, own = posix.stat(entries["jaula.oci.pyc_archive"][0]), posix.stat(own_file)
    except (KeyError, OSError):
        return False
    return (archived.st_dev, archived.st_ino) == (own.st_dev, own.st_ino)


class ArchiveFinder:
    """Finder and loader of the modules in the archive; a member of ``sys.meta_path``.

    ``fd`` is the open archive, and ``first`` the position of its groups.
    """

    def __init__(self, index: Index, fd: int, first: int) -> None:
        self._index, self._groups, self._commands = index
        self._fd = fd
        self._partial = False
        self._first = first
        self._codes: dict[int, list[CodeType]] = {}

    def load(self, argv: Sequence[str]) -> None:
        """Execute the modules of the first command in ``argv``, each after those it imports."""
        modules = sys.modules
        command = next((word for word in argv if word in self._commands), "")
        for name in self._commands.get(command, ()):
            spec = self.find_spec(name) if name not in modules else None
            if spec is None:
                continue
            module = modules[name] = type(sys)(name)
            module.__spec__ = spec
            module.__loader__ = spec.loader
            module.__file__ = spec.origin
            package = name
            parent, _, last = name.rpartition(".")
            if spec.submodule_search_locations is None:
                package = parent
            else:
                module.__path__ = spec.submodule_search_locations
            module.__package__ = package
            try:
                exec(self._code(name), module.__dict__)  # noqa: S102 - a loader executes code
            except BaseException:
                del modules[name]
                raise
            if parent:
                if parent not in modules:
                    __import__(parent)  # its source is newer than the archive
                setattr(modules[parent], last, module)

    def _code(self, name: str) -> CodeType:
        """Return the code of a module; the groups that were read are kept."""
        entry = self._index[name]
        group = entry[4]
        codes = self._codes.get(group)
        if codes is None:
            start, end = self._groups[group]
            data = posix.pread(self._fd, end - start, self._first + start)
            codes = self._codes[group] = marshal.loads(data)
        return codes[entry[5]]

    def close(self) -> None:
        """Close the archive; its modules that are not loaded yet cannot be loaded any more."""
        posix.close(self._fd)
        self._codes.clear()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find a module; see importlib.abc.MetaPathFinder.

        The first import of a module that is loaded in part installs the finder of these.
        """
        if name in PARTIAL and not self._partial:
            self._partial = True
            from jaula.oci import fast_import

            fast_import.install()
            return sys.meta_path[0].find_spec(name, None)
        entry = self._index.get(name)
        if entry is None:
            return None
        file, mtime, size, package_path, group, _ = entry
        try:
            st = posix.stat(file)
        except OSError:
            return None
        if st.st_mtime_ns != mtime or st.st_size != size:
            return None
        loader: Any = self
        if group < 0:
            from _frozen_importlib_external import ExtensionFileLoader

            loader = ExtensionFileLoader(name, file)
        spec = ModuleSpec(name, loader, origin=file, is_package=package_path is not None)
        spec.submodule_search_locations = package_path
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the interpreter's default."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(  # noqa: S102 - a loader executes code
            self._code(module.__name__), module.__dict__
        )


def run_client() -> None:
    """Run ``jaula`` with the modules of its command from the archive, if there is one."""
    _run_client(__file__.rpartition("/")[0])


def _run_client(directory: str) -> None:
    """Run ``jaula``; ``directory`` is that of this package."""
    finder = _open(f"{directory}/__pycache__/{CLIENT_NAME}", f"{directory}/pyc_archive.py")
    if finder is not None:
        finder.load(sys.argv[1:])
        finder.close()
    # Not an import statement, since packages are imported downwards only.
    __import__("jaula.cli.main")
    sys.modules["jaula.cli.main"].run_and_exit()


def _run() -> None:
    """Run the program; the file of this script is in the ``__pycache__`` of the package."""
    directory, _, script = __file__.rpartition("/__pycache__/")
    source = directory.removesuffix("/jaula/oci")
    if script == CLIENT_SCRIPT:
        sys.path.insert(0, source)
        _run_client(directory)
        return
    packages = f"/.venv/lib/python3.{sys.version_info[1]}/site-packages"
    sys.path[:0] = (source, source.removesuffix("/src") + packages)
    finder = _install(f"{directory}/__pycache__/{NAME}", f"{directory}/pyc_archive.py")
    if finder is not None and finder.find_spec("jaula.oci.pyc_archive") is None:
        words = list(sys.orig_argv)  # this script is not that of the present source
        words[words.index(__file__)] = f"{directory}/__main__.py"
        posix.execv(sys.executable, words)
    from jaula.oci.runtime_entry import start

    start(finder.load if finder is not None else None)


if __name__ == "__main__":
    _run()
