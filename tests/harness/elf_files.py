"""ELF files made of machine code, for tests of what reads them. No compiler is needed."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

BASE = 0x10000  # address of the code; a shared object is at 0
_MACHINES = {"x86_64": 62, "aarch64": 183}
_PAGE = 0x1000


def executable(code: bytes, machine: str = "x86_64") -> bytes:
    """Return a static program that starts with the first instruction."""
    return _file(2, machine, BASE, [(1, 5, _PAGE, BASE, code)])


def shared(
    code: bytes,
    exports: Mapping[str, int] | None = None,
    imports: Mapping[str, int] | None = None,
    *,
    needed: Sequence[str] = (),
    run_path: str = "",
    interpreter: str = "",
    entry: int | None = None,
    pointers: Mapping[int, int] | None = None,
    texts: Sequence[str] = (),
    machine: str = "x86_64",
) -> bytes:
    """Return a shared object, or with ``entry`` a program that the dynamic loader loads.

    ``exports`` are offsets in the code by name. ``imports`` are addresses of slots that the loader
    fills, and ``pointers`` are offsets in the code by the address that has them.
    """
    strings = b"\0"
    symbols = bytes(24)
    relocations = b""

    def text(value: str) -> int:
        nonlocal strings
        offset = len(strings)
        strings += value.encode() + b"\0"
        return offset

    for name, offset in (exports or {}).items():
        symbols += struct.pack("<IBBHQQ", text(name), 0x12, 0, 1, BASE + offset, 0)
    for name, slot in (imports or {}).items():
        number = len(symbols) // 24
        symbols += struct.pack("<IBBHQQ", text(name), 0x12, 0, 0, 0, 0)
        kind = 6 if machine == "x86_64" else 1025
        relocations += struct.pack("<QQq", slot, number << 32 | kind, 0)
    for place, offset in (pointers or {}).items():
        kind = 8 if machine == "x86_64" else 1027
        relocations += struct.pack("<QQq", place, kind, BASE + offset)
    dynamic = [(1, text(name)) for name in needed]
    if run_path:
        dynamic.append((29, text(run_path)))
    data = 0x80000  # address
    hashes = struct.pack("<II", 1, len(symbols) // 24)
    tables = {6: symbols, 7: relocations, 4: hashes, 5: strings}
    content = b"\0".join(each.encode() for each in texts) + b"\0"
    content += bytes(-len(content) % 8)
    for tag, table in tables.items():
        dynamic.append((tag, data + len(content)))
        content += table + bytes(-len(table) % 8)
    dynamic += [(10, len(strings)), (8, len(relocations)), (11, 24), (9, 24), (0, 0)]
    encoded = b"".join(struct.pack("<QQ", *each) for each in dynamic)
    code_at = _PAGE
    data_at = code_at + -(-len(code) // _PAGE) * _PAGE
    parts = [(1, 5, code_at, BASE, code), (1, 6, data_at, data, content + encoded)]
    headers = [(2, 6, data_at + len(content), data + len(content), len(encoded))]
    if interpreter:
        path = interpreter.encode() + b"\0"
        parts.append((3, 4, data_at + len(content) + len(encoded), data - _PAGE, path))
    return _file(
        3, machine, BASE + entry if entry is not None else 0, parts, headers
    )  # fmt: skip


def _file(
    kind: int,
    machine: str,
    entry: int,
    parts: Sequence[tuple[int, int, int, int, bytes]],
    headers: Sequence[tuple[int, int, int, int, int]] = (),
) -> bytes:
    count = len(parts) + len(headers)
    result = bytearray(
        b"\x7fELF\x02\x01\x01" + bytes(9)
        + struct.pack("<HHIQQQI", kind, _MACHINES[machine], 1, entry, 64, 0, 0)
        + struct.pack("<HHHHHH", 64, 56, count, 64, 0, 0)
    )  # fmt: skip
    for segment, flags, offset, address, content in parts:
        size = len(content)
        result += struct.pack("<IIQQQQQQ", segment, flags, offset, address, 0, size, size, _PAGE)
    for segment, flags, offset, address, size in headers:
        result += struct.pack("<IIQQQQQQ", segment, flags, offset, address, 0, size, size, 8)
    for _, _, offset, _, content in parts:
        if len(result) < offset + len(content):
            result += bytes(offset + len(content) - len(result))
        result[offset : offset + len(content)] = content
    return bytes(result)
