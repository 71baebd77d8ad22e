"""Programs of a toolbox image at ``/.debug``: small executables that start them from there.

A program of an image expects its dynamic loader and libraries at absolute paths. At ``/.debug`` the
kernel would take the loader of the debugged container, or find none. So each program of the image's
PATH gets a launcher (:mod:`jaula.engine.containers.launcher_elf`). It executes the loader of the
image with the image's library path and the program. Scripts get their interpreter in the same way,
and links with absolute targets lead into the image.

The launchers of an image are a directory that is mounted as the top layer of the toolbox. It is
made once. An image whose programs are all static and reached without absolute links needs none.

Sources: elf(5); ld.so(8), ``--library-path`` and ``--argv0`` (glibc 2.33, musl); execve(2) for the
line of an interpreter.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jaula.engine.containers.launcher_elf import ELF, MACHINES, Machine, Words, launcher
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.kernel.syncfs import fsync_paths
from jaula.spec.rootfs import OverlayRoot, RootSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TOOLBOX = "/.debug"
"""The path of the toolbox in a session."""
DIRECTORY = ".jaula-launch"
"""Name of the directory of the launchers in the toolbox."""

MAX_PROGRAMS = 5000
_HEAD = 4096  # bytes of a program that are read
_PT_INTERP = 3
_NO_ABSOLUTE_LINK = RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS


def library_directories(machine: Machine) -> tuple[str, ...]:
    """Return the directories that the loader of an image searches by default. Pure."""
    return (
        *(f"{base}/{machine.triplet}" for base in ("/usr/local/lib", "/lib", "/usr/lib")),
        *machine.more_libraries,
        *("/usr/local/lib64", "/lib64", "/usr/lib64", "/usr/local/lib", "/lib", "/usr/lib"),
    )


def this_machine() -> Machine | None:
    """Return the machine of this host; None if it has no launchers."""
    return MACHINES.get(os.uname().machine)


class Program(NamedTuple):
    """A program of the image: its real path there, and what executes it.

    ``loader`` is the real path of its dynamic loader, '' for a static program. ``interpreter`` are
    the words of a script's first line, and ``loader`` and ``interpreter_path`` those of the first.
    """

    path: str
    loader: str = ""
    interpreter: tuple[str, ...] = ()
    interpreter_path: str = ""


def for_program(machine: Machine, program: Program, prefix: str, libraries: str) -> bytes:
    """Return the launcher of a program that is below ``prefix``; a script's is that of its words.

    ``libraries`` are the directories of libraries, with the prefix, joined by colons.
    """
    path = prefix + program.path
    name: str | None = None
    real, more = path, tuple[str, ...]()
    if program.interpreter:
        name = program.interpreter[0]
        real, more = prefix + program.interpreter_path, (*program.interpreter[1:], path)
    if not program.loader:
        return launcher(machine, real, (name, *more))
    loader = program.loader
    words: Words = (loader, "--library-path", libraries, "--argv0", name, real, *more)
    return launcher(machine, prefix + loader, words)


# -- the programs of an image --------------------------------------------------------------------


def programs(
    machine: Machine, root: int, directories: Iterable[str]
) -> Iterator[tuple[str, Program, bool]]:
    """Yield name and program of each executable file in the directories of an image.

    The first of a name counts. The last member says whether it needs a launcher. ``root`` is a
    directory: no path leads out of it.
    """
    seen: set[str] = set()
    for directory in directories:
        try:
            fd = _open(root, directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            names = sorted(os.listdir(fd))
        finally:
            os.close(fd)
        for name in names:
            if name in seen or len(seen) >= MAX_PROGRAMS:
                continue
            found = _program(machine, root, f"{directory}/{name}")
            if found is None:
                continue
            seen.add(name)
            linked = not resolves(root, f"{directory}/{name}", _NO_ABSOLUTE_LINK)
            yield name, found, bool(found.loader or found.interpreter or linked)


def _program(machine: Machine, root: int, path: str) -> Program | None:
    """Return the program at a path of an image; None if it cannot be executed from elsewhere."""
    try:
        fd = _open(root, path, os.O_PATH)  # opening a device of the image could do something
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            return None
        real, head = _real_path(fd), _head(fd)
        if head.startswith(b"#!"):
            words = tuple(os.fsdecode(head[2:].split(b"\n", 1)[0]).split(None, 1))
            interpreter = _program(machine, root, words[0]) if words and words[0] != path else None
            if interpreter is None or interpreter.interpreter:
                return None
            words = (words[0], *map(str.strip, words[1:]))
            return Program(real, interpreter.loader, words, interpreter.path)
        loader = loader_of(machine, head)
        if loader is None:
            return None
        if not loader:
            return Program(real)
        loader_fd = _open(root, loader, os.O_PATH)
        try:
            return Program(real, _real_path(loader_fd))
        finally:
            os.close(loader_fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def _head(fd: int) -> bytes:
    """Return the beginning of a regular file that is open as ``O_PATH``."""
    readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(readable, _HEAD, 0)
    finally:
        os.close(readable)


def loader_of(machine: Machine, head: bytes) -> str | None:
    """Return the dynamic loader of an executable, '' for a static one; None for another file.

    ``head`` is its beginning. Only executables of ``machine`` count.
    """
    if not head.startswith(ELF) or len(head) < 64:
        return None
    kind, number = struct.unpack_from("<HH", head, 16)
    if kind not in (2, 3) or number != machine.number:
        return None
    offset, size, count = (
        struct.unpack_from("<Q", head, 32)[0],
        *struct.unpack_from("<HH", head, 54),
    )
    for number in range(count):
        at = offset + number * size
        if size < 56 or at + 56 > len(head):
            return None
        if struct.unpack_from("<I", head, at)[0] == _PT_INTERP:
            start, _, _, length = struct.unpack_from("<QQQQ", head, at + 8)
            if start + length > len(head):
                return None
            return os.fsdecode(head[start : start + length].split(b"\0", 1)[0]) or None
    return ""


def resolves(root: int, path: str, resolve: RESOLVE) -> bool:
    """Return whether a path below a root can be resolved with these restrictions."""
    try:
        os.close(openat2(root, path.lstrip("/"), os.O_PATH, resolve=resolve))
    except OSError:
        return False
    return True


def _open(root: int, path: str, flags: int) -> int:
    resolve = RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS
    return openat2(root, path.lstrip("/") or ".", flags, resolve=resolve)


def _real_path(fd: int) -> str:
    """Return the path of an open file in its detached mount."""
    return os.readlink(f"/proc/self/fd/{fd}")


def make(
    machine: Machine | None, directory: Path, root: int, search: Iterable[str], prefix: str
) -> bool:
    """Write the launchers of the image ``root`` to a new directory; return whether there are any.

    ``search`` are the directories of programs. ``prefix`` is where the image will be mounted. The
    directory appears complete or not at all. Without a machine it is empty.
    """
    new = directory.with_name(f"{directory.name}.{os.getpid()}.new")
    shutil.rmtree(new, ignore_errors=True)
    target = new / DIRECTORY
    target.mkdir(mode=0o755, parents=True)
    needed = machine is not None and _write(machine, target, root, search, prefix)
    if not needed:
        shutil.rmtree(target)
    new.chmod(0o755)
    files = sorted(target.iterdir()) if needed else []
    fsync_paths(*files, *([target] if needed else []), new)
    try:
        new.rename(directory)
        fsync_paths(directory.parent)
    except OSError:
        if not directory.is_dir():  # another session has made it meanwhile
            raise
        shutil.rmtree(new)
    return needed


def _write(machine: Machine, target: Path, root: int, search: Iterable[str], prefix: str) -> bool:
    """Write the launchers of all programs; return whether one of the programs needs it."""
    directories = library_directories(machine)
    libraries = ":".join(prefix + path for path in directories if _is_directory(root, path))
    needed = False
    for name, program, is_needed in programs(machine, root, search):
        needed = needed or is_needed
        file = target / name
        file.write_bytes(for_program(machine, program, prefix, libraries))
        file.chmod(0o755)
    return needed


def add_layer(view: RootSource, directory: str, *, user_xattr: bool) -> RootSource:
    """Return the source of an image with a layer above it. Pure.

    A plain directory of a storage driver without overlayfs becomes the lower layer of an overlay.
    """
    if isinstance(view, OverlayRoot):
        return msgspec.structs.replace(view, lowers=(directory, *view.lowers))
    return OverlayRoot((directory, view.path), id_mapped=view.id_mapped, user_xattr=user_xattr)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(_open(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True
