"""The stack that the programs of an eBPF object use, computed from their instructions.

Source: elf(5), Documentation/bpf/standardization/instruction-set.rst, and check_max_stack_depth of
kernel/bpf/verifier.c: each frame is rounded up, and all frames of a chain of calls have 512 bytes
together. A callback of bpf_loop counts as a called function.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIMIT = 512  # bytes, MAX_BPF_STACK
ROUND = 32  # bytes; 16 from Linux 6.7 with the just-in-time compiler
_SYMTAB, _REL = 2, 9  # section types
_FUNCTION, _SECTION = 2, 3  # symbol types
_FRAME = 10  # register of the frame pointer
_LDX, _ST, _STX, _ALU64 = 1, 2, 3, 7  # instruction classes
_CALL, _MOVE, _ADD, _LOAD64 = 0x85, 0xBF, 0x07, 0x18
_PSEUDO_CALL, _EXECUTABLE = 1, 4  # source register of a call, flag of a section

Position = tuple[int, int]  # section, offset


class Function(NamedTuple):
    """A function: its frame in bytes, and what it calls."""

    name: str
    frame: int
    called: frozenset[Position]


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


def depths(path: Path) -> dict[str, int]:
    """Return the largest depth of the stack of each function, with those that it calls."""
    functions = read(path)

    def depth(position: Position) -> int:
        function = functions[position]
        own = -(-max(1, function.frame) // ROUND) * ROUND
        return own + max(map(depth, function.called), default=0)

    return {function.name: depth(position) for position, function in functions.items()}


def read(path: Path) -> dict[Position, Function]:
    """Return the functions of an object file by their position."""
    data = path.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 40)
    (number,) = struct.unpack_from("<H", data, 60)
    sections = [
        _Section(*struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * n)) for n in range(number)
    ]
    table = next(section for section in sections if section.type == _SYMTAB)
    names = sections[table.link].offset
    symbols = [_Symbol(*each) for each in struct.iter_unpack("<IBBHQQ", _content(data, table))]
    relocations = {
        (section.info, offset): symbols[info >> 32]
        for section in sections
        if section.type == _REL
        for offset, info in struct.iter_unpack("<QQ", _content(data, section))
    }
    code = frozenset(n for n, section in enumerate(sections) if section.flags & _EXECUTABLE)
    return {
        (symbol.section, symbol.value): Function(
            data[names + symbol.name : data.index(b"\0", names + symbol.name)].decode(),
            *_analysed(_content(data, sections[symbol.section]), symbol, relocations, code),
        )
        for symbol in symbols
        if symbol.info & 15 == _FUNCTION
    }


def _content(data: bytes, section: _Section) -> bytes:
    return data[section.offset : section.offset + section.size]


def _instructions(text: bytes, symbol: _Symbol) -> Iterator[tuple[int, int, int, int, int, int]]:
    for offset in range(symbol.value, symbol.value + symbol.size, 8):
        code, registers, displacement, number = struct.unpack_from("<BBhi", text, offset)
        yield offset, code, registers & 15, registers >> 4, displacement, number


def _analysed(
    text: bytes, symbol: _Symbol, relocations: dict[Position, _Symbol], executable: frozenset[int]
) -> tuple[int, frozenset[Position]]:
    lowest, copies, called = 0, set[int](), set[Position]()
    for offset, code, target, source, displacement, number in _instructions(text, symbol):
        kind = code & 7
        if (kind == _LDX and source == _FRAME) or (kind in (_ST, _STX) and target == _FRAME):
            lowest = min(lowest, displacement)
        if code == _MOVE and source == _FRAME:
            copies.add(target)
        elif code == _ADD and target in copies:
            lowest = min(lowest, number)
        elif kind in (_LDX, _ALU64):
            copies.discard(target)
        relocation = relocations.get((symbol.section, offset))
        is_call = code == _CALL and source == _PSEUDO_CALL
        is_callback = code == _LOAD64 and relocation and relocation.section in executable
        if not is_call and not is_callback:
            continue
        if relocation is None:
            called.add((symbol.section, offset + 8 * (number + 1)))
        elif relocation.info & 15 == _SECTION:
            begin = 8 * (number + 1) if is_call else number
            called.add((relocation.section, relocation.value + begin))
        else:
            called.add((relocation.section, relocation.value))
    return -lowest, frozenset(called)
