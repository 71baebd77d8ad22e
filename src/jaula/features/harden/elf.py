"""ELF files as the kernel and the dynamic loader read them: program headers, dynamic section.

Sections may be absent or wrong in a file that runs. They are read only to find the call frames of a
static program, which has no header that leads to them. Only 64-bit little-endian
files of x86-64 and aarch64 are read. Every size is checked against the file, and tables have a
limit, since the files of an image are untrusted.

Sources: elf(5), the System V ABI (gABI chapters 4 and 5), the Linux Standard Base (``.gnu.hash``,
``.eh_frame_hdr``), glibc's ``elf/dl-load.c``, Go's ``debug/gosym/pclntab.go``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MACHINES = {62: "x86_64", 183: "aarch64"}
TABLE_LIMIT = 1_000_000  # entries of one table
FUNCTION_LIMIT = 1 << 18  # bytes
_SEGMENTS_LIMIT = 128
_NEEDED_LIMIT = 512
_STRING_LIMIT = 4096  # bytes

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_EH_FRAME = 1, 2, 3, 0x6474E550
_ET_EXEC, _ET_DYN = 2, 3
(_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_STRSZ, _DT_INIT, _DT_FINI,
 _DT_SONAME, _DT_RPATH, _DT_PLTRELSZ, _DT_JMPREL, _DT_INIT_ARRAY, _DT_FINI_ARRAY, _DT_INIT_ARRAYSZ,
 _DT_FINI_ARRAYSZ, _DT_RUNPATH, _DT_RELRSZ, _DT_RELR, _DT_GNU_HASH) = (
    1, 4, 5, 6, 7, 8, 10, 12, 13, 14, 15, 2, 23, 25, 26, 27, 28, 29, 35, 36, 0x6FFFFEF5,
)  # fmt: skip
# By machine: the relocations of a slot or pointer with a symbol, and those of an address.
_SYMBOLIC = {"x86_64": {1, 6, 7}, "aarch64": {257, 1025, 1026}}
_RELATIVE = {"x86_64": {8, 37}, "aarch64": {1027, 1032}}  # RELATIVE, IRELATIVE
_STT_OBJECT, _STT_FUNC, _STT_IFUNC = 1, 2, 10
_PCLNTAB = {b"\xf1\xff\xff\xff\0\0": 8, b"\xf0\xff\xff\xff\0\0": 8}  # Go 1.20, 1.18

_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


class InvalidElf(Exception):
    """The file is not an ELF file that can be read. The text says why."""


class Segment(NamedTuple):
    """A loaded part of the file: virtual address, offset and size in the file."""

    address: int
    offset: int
    size: int
    executable: bool


class Elf:
    """One ELF file.

    ``exports`` has the addresses of defined symbols by name (several for versions). ``slots`` has
    the name of the symbol whose address the loader writes at an address. ``pointers`` has the
    address that is stored at an address after loading. ``starts`` are the sorted addresses of
    functions as far as they are known.

    :raises InvalidElf: when it cannot be read.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._read_header()
        self.needed: tuple[str, ...] = ()
        self.run_path: tuple[str, ...] = ()
        self.imports: set[str] = set()
        self.exports: dict[str, list[int]] = {}
        self.slots: dict[int, str] = {}
        self.pointers: dict[int, int] = {}
        self.initial: list[int] = [self.entry] if self.entry else []
        functions = self._read_dynamic()
        frames = self._read_frames() or self._read_frame_section()
        self.go = False
        if not frames and not functions and (go := self._read_pclntab()):
            self.go, frames = True, go
        known = set(frames)
        named = [start for start in functions if self.in_code(start)]
        self.has_frames = bool(frames) and 2 * sum(f in known for f in named) >= len(named)
        self.starts: list[int] = []
        self.add_functions([*frames, *functions, *self.initial])
        if not self.relocated:
            self._read_absolute_pointers()

    # -- addresses ------------------------------------------------------------------------------

    def in_code(self, address: int) -> bool:
        """Return whether an address is in an executable segment."""
        return any(s.address <= address < s.address + s.size for s in self.code)

    def add_functions(self, starts: Iterable[int]) -> None:
        """Add addresses at which functions start; those outside of the code are left out."""
        self.starts = sorted({*self.starts, *(start for start in starts if self.in_code(start))})

    def function(self, address: int) -> tuple[int, int]:
        """Return start and end of the function that has a code address.

        One that is larger than FUNCTION_LIMIT is cut into several.
        """
        segment = next(s for s in self.code if s.address <= address < s.address + s.size)
        end = segment.address + segment.size
        index = bisect_right(self.starts, address)
        start = self.starts[index - 1] if index else segment.address
        if index < len(self.starts):
            end = min(end, self.starts[index])
        start = max(start, segment.address)
        start += (address - start) // FUNCTION_LIMIT * FUNCTION_LIMIT
        return start, min(end, start + FUNCTION_LIMIT)

    def in_function(self, address: int) -> bool:
        """Return whether a code address is inside of a function, as far as call frames say it.

        Some linkers put data into the segment of the code.
        """
        index = bisect_right(self.starts, address)
        start = self.starts[index - 1] if index else 0
        entry = self._frame_entries.get(start)
        size = self.read(entry + 12, 4) if entry is not None else b""
        return len(size) < 4 or address < start + int.from_bytes(size, "little")

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield start and end of blocks that together are all of the code."""
        for segment in self.code:
            end = segment.address + segment.size
            for start in range(segment.address, end, FUNCTION_LIMIT):
                yield start, min(end, start + FUNCTION_LIMIT)

    @property
    def code_size(self) -> int:
        """Return the size of the code in bytes."""
        return sum(segment.size for segment in self.code)

    def read(self, address: int, size: int) -> bytes:
        """Return up to ``size`` bytes at an address; fewer at the end of a segment."""
        for segment in self.segments:
            if 0 <= (skip := address - segment.address) < segment.size:
                offset = segment.offset + skip
                return self.data[offset : offset + min(size, segment.size - skip)]
        return b""

    def string(self, address: int) -> str:
        """Return the string at an address."""
        return self.read(address, _STRING_LIMIT).split(b"\0", 1)[0].decode(errors="replace")

    # -- tables ---------------------------------------------------------------------------------

    def _read_header(self) -> None:
        data = self.data
        if data[:4] != b"\x7fELF":
            raise InvalidElf("not an ELF file")
        if len(data) < 64 or data[4] != 2 or data[5] != 1:
            raise InvalidElf("not a 64-bit little-endian ELF file")
        kind, machine, _, self.entry, offset = struct.unpack_from("<HHIQQ", data, 16)
        size, count = struct.unpack_from("<HH", data, 54)
        if machine not in MACHINES:
            raise InvalidElf(f"machine {machine} is not x86-64 or aarch64")
        if kind not in (_ET_EXEC, _ET_DYN):
            raise InvalidElf(f"type {kind} is neither an executable nor a shared object")
        if size != 56 or count > _SEGMENTS_LIMIT or offset + size * count > len(data):
            raise InvalidElf("the program headers are not in the file")
        self.machine = MACHINES[machine]
        self.relocated = kind == _ET_DYN
        self.interpreter = ""
        self._dynamic = b""
        self._frames = 0
        self._frame_entries: dict[int, int] = {}  # by start, of .eh_frame_hdr
        segments = []
        for index in range(count):
            kind, flags, start, address, _, length, _, _ = struct.unpack_from(
                "<IIQQQQQQ", data, offset + index * size
            )
            length = max(0, min(length, len(data) - start))
            if kind == _PT_LOAD and length:
                segments.append(Segment(address, start, length, bool(flags & 1)))
            elif kind == _PT_DYNAMIC:
                self._dynamic = data[start : start + length]
            elif kind == _PT_INTERP:
                text = data[start : start + min(length, _STRING_LIMIT)].split(b"\0", 1)[0]
                self.interpreter = text.decode(errors="replace")
            elif kind == _PT_EH_FRAME:
                self._frames = address
        self.segments = tuple(segments)
        self.code = tuple(segment for segment in segments if segment.executable)
        if not self.code:
            raise InvalidElf("no segment of the file is executable")

    def _read_dynamic(self) -> list[int]:
        """Read symbols and relocations, and return the addresses of exported functions."""
        tags: dict[int, int] = {}
        needed: list[int] = []
        for index in range(0, len(self._dynamic) - 15, 16):
            tag, value = struct.unpack_from("<QQ", self._dynamic, index)
            if not tag:
                break
            if tag == _DT_NEEDED:
                if len(needed) == _NEEDED_LIMIT:
                    raise InvalidElf(f"it needs more than {_NEEDED_LIMIT} libraries")
                needed.append(value)
            else:
                tags[tag] = value
        strings = self.read(tags.get(_DT_STRTAB, 0), tags.get(_DT_STRSZ, 0))
        self.needed = tuple(dict.fromkeys(_string(strings, offset) for offset in needed))
        path = _string(strings, tags.get(_DT_RUNPATH, tags.get(_DT_RPATH, 0)))
        self.run_path = tuple(part for part in path.split(":") if part)
        names, functions = self._read_symbols(tags, strings)
        self._read_relocations(tags, names)
        for tag in (_DT_INIT, _DT_FINI):
            if tags.get(tag):
                self.initial.append(tags[tag])
        for tag, size in ((_DT_INIT_ARRAY, _DT_INIT_ARRAYSZ), (_DT_FINI_ARRAY, _DT_FINI_ARRAYSZ)):
            table = tags.get(tag, 0)
            content = self.read(table, min(tags.get(size, 0), 8 * TABLE_LIMIT))
            for index, value in enumerate(_words(content)):
                self.initial.append(self.pointers.get(table + 8 * index, value))
        return functions

    def _read_symbols(
        self, tags: dict[int, int], strings: bytes
    ) -> tuple[list[tuple[str, int]], list[int]]:
        """Return name and address of each symbol, 0 if it is undefined; and the functions."""
        names: list[tuple[str, int]] = []
        functions: list[int] = []
        if _DT_SYMTAB not in tags:
            return names, functions
        table = self.read(tags[_DT_SYMTAB], 24 * self._symbols_count(tags))
        for name, info, _, section, value, _ in _SYMBOL.iter_unpack(table[: len(table) // 24 * 24]):
            text = _string(strings, name)
            if not section:
                names.append((text, 0))
                if text:
                    self.imports.add(text)
                continue
            names.append((text, value))
            if info & 15 in (_STT_FUNC, _STT_IFUNC):
                functions.append(value)
            if info & 15 in (0, _STT_OBJECT, _STT_FUNC, _STT_IFUNC) and info >> 4:
                self.exports.setdefault(text, []).append(value)
        return names, functions

    def _symbols_count(self, tags: dict[int, int]) -> int:
        """Return the number of dynamic symbols: that of the hash tables and of relocations."""
        count = 0
        if len(head := self.read(tags.get(_DT_HASH, 0), 8)) == 8 and _DT_HASH in tags:
            count = struct.unpack("<II", head)[1]
        elif _DT_GNU_HASH in tags and len(head := self.read(tags[_DT_GNU_HASH], 16)) == 16:
            buckets, first, bloom, _ = struct.unpack("<IIII", head)
            at = tags[_DT_GNU_HASH] + 16 + 8 * bloom
            content = self.read(at, 4 * min(buckets, TABLE_LIMIT))
            last = max((v for v, in struct.iter_unpack("<I", content[: len(content) & ~3])),
                       default=0)  # fmt: skip
            count = first
            if last >= first:
                chain = self.read(at + 4 * buckets + 4 * (last - first), 4 * TABLE_LIMIT)
                length = next(
                    (n for n, (v,) in enumerate(struct.iter_unpack("<I", chain[: len(chain) & ~3]))
                     if v & 1), 0,
                )  # fmt: skip
                count = last + length + 1
        used = max((info >> 32 for _, info, _ in self._relocations(tags)), default=0) + 1
        return min(max(count, used), TABLE_LIMIT)

    def _relocations(self, tags: dict[int, int]) -> Iterator[tuple[int, int, int]]:
        for table, size in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
            if table in tags:
                content = self.read(tags[table], min(tags.get(size, 0), 24 * TABLE_LIMIT))
                yield from _RELA.iter_unpack(content[: len(content) // 24 * 24])

    def _read_relocations(self, tags: dict[int, int], names: list[tuple[str, int]]) -> None:
        symbolic, relative = _SYMBOLIC[self.machine], _RELATIVE[self.machine]
        for place, info, addend in self._relocations(tags):
            kind, index = info & 0xFFFFFFFF, info >> 32
            if kind in relative:
                self.pointers[place] = addend
            elif kind in symbolic and index < len(names):
                name, value = names[index]
                if value and kind != 6 and kind != 7:
                    self.pointers[place] = value + addend
                self.slots[place] = name
        if _DT_RELR in tags:
            self._read_relr(self.read(tags[_DT_RELR], min(tags.get(_DT_RELRSZ, 0), TABLE_LIMIT)))

    def _read_relr(self, content: bytes) -> None:
        """Read relative relocations as bit maps (gABI, ``SHT_RELR``)."""
        base = 0
        for word in _words(content):
            if word & 1:
                places = [base + 8 * bit for bit in range(63) if word >> (bit + 1) & 1]
                base += 63 * 8
            else:
                places, base = [word], word + 8
            for place in places:
                if len(value := self.read(place, 8)) == 8:
                    self.pointers[place] = int.from_bytes(value, "little")

    def _read_frames(self) -> list[int]:
        """Return the addresses of functions in ``.eh_frame_hdr``, its usual encoding."""
        head = self.read(self._frames, 12) if self._frames else b""
        if len(head) < 12 or head[:4] != b"\x01\x1b\x03\x3b":
            return []
        count = min(int.from_bytes(head[8:], "little"), TABLE_LIMIT)
        content = self.read(self._frames + 12, 8 * count)
        entries = struct.iter_unpack("<ii", content[: len(content) & ~7])
        self._frame_entries = {
            self._frames + start: self._frames + entry for start, entry in entries
        }
        return list(self._frame_entries)

    def _read_frame_section(self) -> list[int]:
        """Return the addresses of functions in the section ``.eh_frame``, its usual encoding."""
        (offset,) = struct.unpack_from("<Q", self.data, 40)
        size, count, names = struct.unpack_from("<HHH", self.data, 58)
        table = self.data[offset : offset + 64 * count]
        if size != 64 or len(table) != 64 * count or names >= count:
            return []
        sections = list(struct.iter_unpack("<IIQQQQIIQQ", table))
        _, _, _, _, start, length, *_ = sections[names]
        strings = self.data[start : start + length]
        for name, _, _, address, start, length, *_ in sections:
            if _string(strings, name) == ".eh_frame":
                return self._read_frame_entries(self.data[start : start + length], address)
        return []

    def _read_frame_entries(self, content: bytes, address: int) -> list[int]:
        starts: list[int] = []
        at = 0
        while at + 12 <= len(content) and len(starts) < TABLE_LIMIT:
            length, entry, start = struct.unpack_from("<IIi", content, at)
            if not length:
                break
            if entry:  # 0: common information
                starts.append(address + at + 8 + start)
            at += 4 + length
        return [start for start in starts if self.in_code(start)]

    def _read_pclntab(self) -> list[int]:
        """Return the addresses of Go's functions, from its line table."""
        for segment in self.segments:
            end = segment.offset + segment.size
            for magic in _PCLNTAB:
                at = self.data.find(magic, segment.offset, end)
                while at >= 0:
                    if starts := self._read_go_functions(at):
                        return starts
                    at = self.data.find(magic, at + 1, end)
        return []

    def _read_go_functions(self, at: int) -> list[int]:
        header = self.data[at : at + 72]
        if len(header) < 72 or header[6] not in (1, 4) or header[7] != 8:
            return []
        count, _, text, _, _, _, _, table = struct.unpack_from("<8Q", header, 8)
        if not 0 < count <= TABLE_LIMIT:
            return []
        if not text:  # since Go 1.26 the loader of the file knows it
            text = self.code[0].address
        content = self.data[at + table : at + table + 8 * count]
        starts = [
            text + start for start, _ in struct.iter_unpack("<II", content[: len(content) & ~7])
        ]
        return starts if len(starts) == count and self.in_code(starts[0]) else []

    def _read_absolute_pointers(self) -> None:
        """Read the pointers of a file without relocations: words of data that are functions."""
        starts = set(self.starts)
        for segment in self.segments:
            if segment.executable:
                continue
            skip = -segment.address % 8
            content = self.data[segment.offset + skip : segment.offset + segment.size]
            for index, value in enumerate(_words(content)):
                if value in starts:
                    self.pointers[segment.address + skip + 8 * index] = value


class Object(NamedTuple):
    """A loaded file: its path in the image, and its content."""

    path: str
    elf: Elf


def _words(content: bytes) -> Iterator[int]:
    return (value for (value,) in struct.iter_unpack("<Q", content[: len(content) & ~7]))


def _string(strings: bytes, offset: int) -> str:
    if offset >= len(strings):
        return ""
    end = strings.find(b"\0", offset, offset + _STRING_LIMIT)
    return strings[offset : end if end >= 0 else offset].decode(errors="replace")
