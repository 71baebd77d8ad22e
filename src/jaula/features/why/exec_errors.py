"""Why a file cannot be executed. Pure.

Source: execve(2), elf(5), fs/binfmt_script.c, fs/binfmt_elf.c. The kernel reports ENOENT for a
missing interpreter or loader, so the error names the wrong file.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEAD = 4096  # bytes of a program that are read
_BINPRM = 256  # bytes that the kernel reads of a script's first line
_LOOPS = 5  # interpreters that are scripts
_PT_INTERP = 3
_MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64",
    183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
_COMPATIBLE = {
    "x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm"), "ppc64le": ("ppc64",),
}  # fmt: skip
_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64", "i386": "linux/386",
              "arm": "linux/arm/v7", "ppc64": "linux/ppc64le", "s390x": "linux/s390x",
              "riscv64": "linux/riscv64"}  # fmt: skip


class ProgramFile(NamedTuple):
    """A file in the container: its mode and its first bytes."""

    path: str
    mode: int
    head: bytes
    uid: int = 0  # in the container, of a file of the archive API


class ExecError(NamedTuple):
    """Why a file cannot be executed, and the remedy. ``reason`` is empty if nothing was found."""

    reason: str = ""
    advice: str = ""


Lookup = Callable[[str], ProgramFile | None]


def diagnose(path: str, lookup: Lookup, machine: str) -> ExecError:
    """Return why a program of a container cannot be executed on a host of ``machine``.

    ``lookup`` returns a file of the container, None if it does not exist.
    """
    return _diagnose(path, lookup, machine, _LOOPS)


def opened(path: str, lookup: Lookup) -> tuple[str, ...]:
    """Return the files that the kernel opens to execute a program: itself, interpreters, loader."""
    paths = [path]
    for _ in range(_LOOPS):
        program = lookup(paths[-1])
        if program is None:
            break
        following = _interpreter_of(program.head)
        if following is None:
            break
        paths.append(following)
    return tuple(paths)


def _interpreter_of(head: bytes) -> str | None:
    if head.startswith(b"#!"):
        words = head[2:_BINPRM].partition(b"\n")[0].split(None, 1)
        return words[0].decode("utf-8", "surrogateescape") if words else None
    if head.startswith(b"\x7fELF") and len(head) >= 52:
        return _interpreter(head, wide=head[4] == 2, order="<" if head[5] == 1 else ">")
    return None


def _diagnose(path: str, lookup: Lookup, machine: str, loops: int) -> ExecError:
    program = lookup(path)
    if program is None:
        return ExecError(
            f"{path} does not exist in the container",
            "check the spelling, PATH and that the image has the program",
        )
    if stat.S_ISDIR(program.mode):
        return ExecError(f"{path} is a directory")
    if not stat.S_ISREG(program.mode):
        return ExecError(f"{path} is not a regular file")
    if not program.mode & 0o111:
        return ExecError(
            f"{path} has no execute bit (mode {stat.S_IMODE(program.mode):04o})",
            f"chmod +x {path} in the image, or run its interpreter with it as argument",
        )
    head = program.head
    if head.startswith(b"#!"):
        return _script(path, head, lookup, machine, loops)
    if head.startswith(b"\x7fELF"):
        return _elf(path, head, lookup, machine)
    if not head:
        return ExecError(f"{path} is empty")
    if head.startswith(b"MZ"):
        return ExecError(f"{path} is a Windows program", "use an image for linux")
    if head[:4] in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa\xcf"):
        return ExecError(f"{path} is a macOS program", "build it for linux")
    if head.startswith(b"\xef\xbb\xbf#!"):
        return ExecError(
            f"{path} begins with a byte order mark before its #! line", "save it without one"
        )
    return ExecError(
        f"{path} is neither an ELF program nor a script with a #! line",
        "begin the script with #!/bin/sh, or run it with sh",
    )


def _script(path: str, head: bytes, lookup: Lookup, machine: str, loops: int) -> ExecError:
    line, newline, _ = head[2:_BINPRM].partition(b"\n")
    words = line.strip(b" \t").split(None, 1) if line.strip() else []
    if not words:
        return ExecError(f"the #! line of {path} names no interpreter")
    interpreter = words[0].decode("utf-8", "surrogateescape")
    if newline and line.endswith(b"\r"):
        shown = line.strip().decode("utf-8", "replace")
        return ExecError(
            f"the #! line of {path} ends in CR LF, so the kernel looks for '{shown}\\r'",
            f"convert the line ends: sed -i 's/\\r$//' {path}, or git's core.autocrlf=input",
        )
    if loops <= 0:
        return ExecError(f"the interpreters of {path} are scripts of each other")
    if lookup(interpreter) is None:
        return ExecError(
            f"the interpreter {interpreter} of {path} does not exist in the container",
            f"install it in the image, or change the #! line of {path}",
        )
    error = _diagnose(interpreter, lookup, machine, loops - 1)
    return (
        ExecError(f"interpreter of {path}: {error.reason}", error.advice) if error.reason else error
    )


def _elf(path: str, head: bytes, lookup: Lookup, machine: str) -> ExecError:
    if len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return ExecError(f"{path} has a damaged ELF header")
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    number = struct.unpack_from(f"{order}H", head, 18)[0]
    name = _MACHINES.get(number, f"machine {number}")
    if name == "ppc64" and order == ">" and machine == "ppc64le":
        name = "big-endian ppc64"
    if name not in _COMPATIBLE.get(machine, (machine,)):
        platform = _PLATFORMS.get(machine, machine)
        return ExecError(
            f"{path} is for {name}, and this host is {machine}",
            f"pull the image for the host: --platform {platform}; or register an emulator with "
            "binfmt_misc",
        )
    loader = _interpreter(head, wide=wide, order=order)
    if loader is None:
        return ExecError()
    if lookup(loader) is None:
        library = "musl" if "musl" in loader else "glibc"
        return ExecError(
            f"the loader {loader} of {path} does not exist in the container",
            f"the program is built for {library}: use an image with it, or link it statically",
        )
    return ExecError()


def _interpreter(head: bytes, *, wide: bool, order: str) -> str | None:
    """Return the loader of a dynamic program, None if it has none or its header is out of reach."""
    try:
        if wide:
            offset = struct.unpack_from(f"{order}Q", head, 32)[0]
            size, number = struct.unpack_from(f"{order}HH", head, 54)
        else:
            offset = struct.unpack_from(f"{order}I", head, 28)[0]
            size, number = struct.unpack_from(f"{order}HH", head, 42)
        for n in range(min(number, 64)):
            at = offset + n * size
            if struct.unpack_from(f"{order}I", head, at)[0] != _PT_INTERP:
                continue
            if wide:
                start, length = struct.unpack_from(f"{order}Q16xQ", head, at + 8)
            else:
                start, length = struct.unpack_from(f"{order}I8xI", head, at + 4)
            text = head[start : start + min(length, 4096)].partition(b"\0")[0]
            return text.decode("utf-8", "surrogateescape") or None
    except (struct.error, OverflowError):
        return None
    return None


def search(program: str, environment: Sequence[str], lookup: Lookup) -> str:
    """Return the path of a program: itself, or the first in PATH, as execvp(3) finds it.

    A file without an execute bit is the result if there is no other.
    """
    if "/" in program or not program:
        return program
    path = next((each[5:] for each in environment if each.startswith("PATH=")), DEFAULT_PATH)
    first = ""
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{program}"
        found = lookup(candidate)
        if found is None or stat.S_ISDIR(found.mode):
            continue
        if found.mode & 0o111:
            return candidate
        first = first or candidate
    return first or program
