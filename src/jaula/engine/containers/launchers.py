"""Programs of a toolbox image at ``/.debug``: small executables that start them from there.

A program of an image expects its dynamic loader and libraries at absolute paths. At ``/.debug`` the
kernel would take the loader of the debugged container, or find none. So each program of the image's
PATH gets a launcher: a static executable of some 400 bytes. It executes the loader of the image
with the image's library path and the program. Scripts get their interpreter in the same way, and
links with absolute targets lead into the image.

The launchers of an image are a directory that is mounted as the top layer of the toolbox. It is
made once. An image whose programs are all static and reached without absolute links needs none.

Sources: elf(5); ld.so(8), ``--library-path`` and ``--argv0`` (glibc 2.33, musl); execve(2) for the
line of an interpreter; the System V ABI of x86-64 for the stack of a new process. Pure but for
:func:`make`.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from jaula.kernel.paths import RESOLVE, openat2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DIRECTORY = ".jaula-launch"
"""Name of the directory of the launchers in the toolbox."""
MACHINE = "x86_64"
"""The machine for which launchers exist."""

MAX_PROGRAMS = 5000
_HEAD = 4096  # bytes of a program that are read
_ELF, _EM_X86_64, _PT_LOAD, _PT_INTERP, _PT_GNU_STACK = b"\x7fELF\x02\x01", 62, 1, 3, 0x6474E551
_NO_ABSOLUTE_LINK = RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS
_BASE = 0x400000  # address at which a launcher is loaded
_LIBRARIES = (
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/lib64",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/usr/lib",
)


class Program(NamedTuple):
    """A program of the image: its real path there, and what executes it.

    ``loader`` is the real path of its dynamic loader, '' for a static program. ``interpreter`` are
    the words of a script's first line, and ``loader`` and ``interpreter_path`` those of the first.
    """

    path: str
    loader: str = ""
    interpreter: tuple[str, ...] = ()
    interpreter_path: str = ""


# -- the executable ------------------------------------------------------------------------------


def launcher(path: str, words: tuple[str | None, ...]) -> bytes:
    """Return an executable that executes ``path`` with these arguments, then its own.

    None stands for its own name, argument 0.
    """
    header = 64 + 2 * 56
    strings, addresses = b"", []
    code_size = len(_code(0, (0,) * len(words), words))
    start = _BASE + header + code_size
    for text in (path, *(word or "" for word in words)):
        addresses.append(start + len(strings))
        strings += os.fsencode(text) + b"\0"
    code = _code(addresses[0], tuple(addresses[1:]), words)
    size = header + len(code) + len(strings)
    elf = struct.pack(
        "<6s10xHHIQQQIHHHHHH", _ELF, 2, _EM_X86_64, 1, _BASE + header, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    elf = elf[:6] + b"\1" + elf[7:]  # EV_CURRENT
    load = struct.pack("<IIQQQQQQ", _PT_LOAD, 5, 0, _BASE, _BASE, size, size, 4096)
    stack = struct.pack("<IIQQQQQQ", _PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16)
    return elf + load + stack + code + strings


def _code(path: int, addresses: tuple[int, ...], words: tuple[str | None, ...]) -> bytes:
    """Return the machine code; ``addresses`` are those of ``words``."""
    code = b"\x48\x89\xe3"  # mov rbx, rsp: argc, the arguments, 0, the environment
    code += b"\x48\x8b\x0b"  # mov rcx, [rbx]
    code += b"\x48\x8d\x54\xcb\x10"  # lea rdx, [rbx+rcx*8+16]
    code += b"\x48\x8d\x04\xcd" + struct.pack("<i", (len(words) + 2) * 8)  # lea rax, [rcx*8+n]
    code += b"\x48\x29\xc4"  # sub rsp, rax
    code += b"\x48\x83\xe4\xf0"  # and rsp, -16
    code += b"\x48\x89\xe7"  # mov rdi, rsp
    for address, word in zip(addresses, words, strict=True):
        if word is None:
            code += b"\x48\x8b\x43\x08"  # mov rax, [rbx+8]
        else:
            code += b"\x48\xb8" + struct.pack("<Q", address)  # mov rax, address
        code += b"\x48\xab"  # stosq
    code += b"\x48\x8d\x73\x10"  # lea rsi, [rbx+16]
    code += b"\xf3\x48\xa5"  # rep movsq: the other arguments and the 0
    code += b"\x48\x89\xe6"  # mov rsi, rsp
    code += b"\x48\xbf" + struct.pack("<Q", path)  # mov rdi, path
    code += b"\xb8\x3b\x00\x00\x00\x0f\x05"  # execve
    code += b"\xbf\x7e\x00\x00\x00"  # mov edi, 126
    return code + b"\xb8\xe7\x00\x00\x00\x0f\x05"  # exit_group


def for_program(program: Program, prefix: str, libraries: str) -> bytes:
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
        return launcher(real, (name, *more))
    loader = program.loader
    words = (loader, "--library-path", libraries, "--argv0", name, real, *more)
    return launcher(prefix + loader, words)


# -- the programs of an image --------------------------------------------------------------------


def programs(root: int, directories: Iterable[str]) -> Iterator[tuple[str, Program, bool]]:
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
            found = _program(root, f"{directory}/{name}")
            if found is None:
                continue
            seen.add(name)
            linked = not resolves(root, f"{directory}/{name}", _NO_ABSOLUTE_LINK)
            yield name, found, bool(found.loader or found.interpreter or linked)


def _program(root: int, path: str) -> Program | None:
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
            interpreter = _program(root, words[0]) if words and words[0] != path else None
            if interpreter is None or interpreter.interpreter:
                return None
            words = (words[0], *map(str.strip, words[1:]))
            return Program(real, interpreter.loader, words, interpreter.path)
        loader = loader_of(head)
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


def loader_of(head: bytes) -> str | None:
    """Return the dynamic loader of an executable, '' for a static one; None for another file.

    ``head`` is its beginning. Only executables of :data:`MACHINE` count.
    """
    if not head.startswith(_ELF) or len(head) < 64:
        return None
    kind, machine = struct.unpack_from("<HH", head, 16)
    if kind not in (2, 3) or machine != _EM_X86_64:
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


def make(directory: Path, root: int, search: Iterable[str], prefix: str) -> bool:
    """Write the launchers of the image ``root`` to a new directory; return whether there are any.

    ``search`` are the directories of programs. ``prefix`` is where the image will be mounted. The
    directory appears complete or not at all.
    """
    libraries = ":".join(prefix + path for path in _LIBRARIES if _is_directory(root, path))
    new = directory.with_name(f"{directory.name}.{os.getpid()}.new")
    shutil.rmtree(new, ignore_errors=True)
    target = new / DIRECTORY
    target.mkdir(mode=0o755, parents=True)
    needed = False
    for name, program, is_needed in programs(root, search):
        needed = needed or is_needed
        file = target / name
        file.write_bytes(for_program(program, prefix, libraries))
        file.chmod(0o755)
    if not needed:
        shutil.rmtree(target)
    new.chmod(0o755)
    try:
        new.rename(directory)
    except OSError:
        if not directory.is_dir():  # another session has made it meanwhile
            raise
        shutil.rmtree(new)
    return needed


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(_open(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True
