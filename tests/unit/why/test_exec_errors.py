"""Files that cannot be executed, and damaged ones."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable

import pytest

from jaula.features.why.exec_errors import ExecError, ProgramFile, diagnose, search

REGULAR = stat.S_IFREG | 0o755


def elf(machine: int, *, loader: bytes = b"", wide: bool = True) -> bytes:
    """Return the head of a little-endian program."""
    assert wide
    header = b"\x7fELF\2\1\1" + bytes(9) + (2).to_bytes(2, "little")
    header += machine.to_bytes(2, "little") + bytes(12) + (64).to_bytes(8, "little") + bytes(14)
    header += (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    header = header.ljust(64, b"\0")
    entry = (3).to_bytes(4, "little") + bytes(4) + (120).to_bytes(8, "little") + bytes(16)
    entry += len(loader).to_bytes(8, "little")
    return header + (entry.ljust(56, b"\0") + loader if loader else b"")


def files(**content: bytes | ProgramFile) -> Callable[[str], ProgramFile | None]:
    def lookup(path: str) -> ProgramFile | None:
        found = content.get(path.lstrip("/").replace("/", "_"))
        if isinstance(found, bytes):
            return ProgramFile(path, REGULAR, found)
        return found

    return lookup


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"", "is empty"),
        (b"echo hello\n", "neither an ELF program nor a script"),
        (b"#!\n", "names no interpreter"),
        (b"#!/bin/sh\r\n", "CR LF"),
        (b"#!/bin/absent -x\n", "interpreter /bin/absent"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
        (b"MZ\x90", "Windows"),
        (b"\xcf\xfa\xed\xfe", "macOS"),
        (elf(183), "for aarch64"),
        (elf(62, loader=b"/lib/ld-musl-x86_64.so.1\0"), "ld-musl-x86_64.so.1"),
        (b"\x7fELF", "damaged"),
    ],
)
def test_a_file_that_cannot_be_executed(head: bytes, reason: str) -> None:
    error = diagnose("/a", files(a=head, bin_sh=elf(62)), "x86_64")
    assert reason in error.reason


def test_a_program_that_can_be_executed_has_no_error() -> None:
    lookup = files(a=elf(62, loader=b"/lib/ld\0"), lib_ld=elf(62), s=b"#! /a\n", i=elf(3))
    assert diagnose("/a", lookup, "x86_64") == ExecError()
    assert diagnose("/s", lookup, "x86_64") == ExecError()
    assert diagnose("/i", lookup, "x86_64") == ExecError()


def test_modes() -> None:
    plain = ProgramFile("/a", stat.S_IFREG | 0o644, b"#!/bin/sh\n")
    assert "no execute bit (mode 0644)" in diagnose("/a", files(a=plain), "x86_64").reason
    directory = ProgramFile("/a", stat.S_IFDIR | 0o755, b"")
    assert "is a directory" in diagnose("/a", files(a=directory), "x86_64").reason
    assert "does not exist" in diagnose("/b", files(), "x86_64").reason


def test_scripts_of_each_other_end() -> None:
    assert "scripts of each other" in diagnose("/a", files(a=b"#!/a\n"), "x86_64").reason


def test_damaged_headers_never_fail() -> None:
    numbers = random.Random(7)
    good = elf(62, loader=b"/lib/ld\0")
    for _ in range(2000):
        data = bytearray(good[: numbers.randrange(len(good) + 1)])
        for _ in range(numbers.randrange(6)):
            if data:
                data[numbers.randrange(len(data))] = numbers.randrange(256)
        diagnose("/a", files(a=bytes(data)), "x86_64")


def test_search_of_path() -> None:
    lookup = files(opt_x=b"", bin_x=b"")
    assert search("x", ["A=1", "PATH=/usr/bin:/opt:/bin"], lookup) == "/opt/x"
    assert search("x", [], lookup) == "/bin/x"
    assert search("./x", [], lookup) == "./x"
    assert search("y", [], lookup) == "y"
    assert search("", [], lookup) == ""
