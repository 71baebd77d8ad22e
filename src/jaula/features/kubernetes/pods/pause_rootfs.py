"""The root file system of a sandbox, with the program ``pause``.

The program is the first process of a sandbox. It holds the pod's namespaces, reaps the processes
that a shared process namespace leaves to it, and exits at SIGTERM or SIGINT. It is an ELF file of
less than 300 bytes: the instructions below, for each architecture, behind a header. So a sandbox
needs no image, and its process has one page of memory.

Calls of the program, in order: ``rt_sigprocmask(SIG_SETMASK, all)``; in a loop
``rt_sigtimedwait(all)`` and ``wait4(-1, WNOHANG)`` until no child has exited; ``exit_group(0)``.
"""

from __future__ import annotations

import functools
import io
import os
import struct

from jaula.errors import Unsupported
from jaula.sha256 import sha256

PROGRAM = "/pause"
_BASE = 0x400000  # address of the file in memory
_HEADER, _PROGRAM_HEADER = 64, 56  # bytes
_X86_64, _AARCH64 = 62, 183  # e_machine

_CODE = {
    "x86_64": (
        _X86_64,
        (
            "6aff b80e000000 bf02000000 4889e6 31d2 41ba08000000 0f05"  # rt_sigprocmask
            "b880000000 4889e7 31f6 31d2 41ba08000000 0f05"  # rt_sigtimedwait
            "83f802 7423 83f80f 741e"  # SIGINT, SIGTERM: to exit_group
            "b83d000000 48c7c7ffffffff 31f6 ba01000000 4531d2 0f05 85c0 7fe4 ebc4"  # wait4
            "b8e7000000 31ff 0f05"
        ),  # exit_group
    ),
    "aarch64": (
        _AARCH64,
        (
            "00008092 e00f1ff8 e81080d2 400080d2 e1030091 020080d2 030180d2 010000d4"
            "281180d2 e0030091 010080d2 020080d2 030180d2 010000d4"
            "1f080071 80010054 1f3c0071 40010054"
            "882080d2 00008092 010080d2 220080d2 030080d2 010000d4 1f000071 2cffff54 eeffff17"
            "c80b80d2 000080d2 010000d4"
        ),
    ),
}


def program(architecture: str) -> bytes:
    """Return the ELF file for a machine, by its name in uname(2).

    :raises Unsupported: when there is none for it.
    """
    if architecture not in _CODE:
        raise Unsupported(
            f"pods are not supported on {architecture}",
            hint=f"supported are {', '.join(_CODE)}",
        )
    machine, text = _CODE[architecture]
    code = bytes.fromhex(text)
    offset = _HEADER + 2 * _PROGRAM_HEADER
    size = offset + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little endian, version 1
    header += struct.pack("<HHIQQQI", 2, machine, 1, _BASE + offset, _HEADER, 0, 0)
    header += struct.pack("<HHHHHH", _HEADER, _PROGRAM_HEADER, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # read, execute
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # read, write
    return header + load + stack + code


@functools.cache
def layer() -> tuple[str, bytes]:
    """Return the diff id and the tar of the root file system for this machine.

    :raises Unsupported: when this machine has no program.
    """
    import tarfile  # an engine without pods does not need it

    content = program(os.uname().machine)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("dev", "etc", "proc", "sys"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo(PROGRAM[1:])
        entry.mode, entry.size = 0o755, len(content)
        tar.addfile(entry, io.BytesIO(content))
    data = buffer.getvalue()
    return f"sha256:{sha256(data).hexdigest()}", data
