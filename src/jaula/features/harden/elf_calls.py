"""The system calls that a program and its libraries can make, by reachability.

Reached are the entry points of the program, the constructors of each object, the functions whose
address is stored in data, and what reached code calls or takes the address of. Imports are bound to
the first object that exports the name, as the dynamic loader does. All code counts as reached in a
program that is too large, and in one of Go. Of a library that is too large the imports are read.

The files are untrusted, so all work is counted: instructions that are disassembled, and steps back
from a system call to its number.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from jaula.features.harden.elf import Elf, Object
from jaula.features.harden.elf_code import Code, Numbers, Place, instructions

CODE_LIMIT = 12 << 20  # bytes of code of one object that is followed function by function
WORK_LIMIT = 100_000_000  # bytes of code and steps back, of one image
_KEPT_EDGES = 2_000_000
_KEPT_INSTRUCTIONS = 400_000
_PARAMETERS_LIMIT = 16  # of one function
_word = struct.Struct("<I")
_SYSCALL = {"x86_64": b"\x0f\x05", "aarch64": b"\x01\x00\x00\xd4"}
_SYMBOL = re.compile(rb"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]{2,127}(?=\0)")
_CALL = re.compile(rb"[\xe8\xe9](?=(....))", re.DOTALL)
_SLOT_USE = re.compile(rb"\xff[\x15\x25](?=(....))", re.DOTALL)
_STUB = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25(....)", re.DOTALL)  # of x86-64's PLT


class Call(NamedTuple):
    """A system call: its number, the object and the function that make it.

    ``root`` is the name that the program imports and that leads there. It is '' if a constructor or
    a function table does, of the object ``root_path``.
    """

    number: int
    path: str
    symbol: str
    root: str
    root_path: str


class Calls(NamedTuple):
    """The system calls of a program. ``unknown`` names functions whose number is not constant.

    ``unread`` are libraries too large to be followed, which make calls by syscall(2). ``complete``
    is false if the limit of work was reached.
    """

    calls: tuple[Call, ...]
    unknown: tuple[str, ...]
    unread: tuple[str, ...]
    complete: bool


Function = tuple[int, int]  # index of the object, start address


class _Edge(NamedTuple):
    """A use of a function: its address, or the name of an import.

    ``instruction`` is the index of the call, -1 if only the address is taken.
    """

    target: int | str
    instruction: int


class _Summary(NamedTuple):
    """The uses of one function, and the numbers of its system calls."""

    edges: tuple[_Edge, ...]
    numbers: tuple[Numbers, ...]
    ends: bool


class Analysis:
    """The code of the objects of one image. Several programs share their libraries."""

    def __init__(self, work: int = WORK_LIMIT) -> None:
        self._work = work
        self._summaries: dict[tuple[int, int], _Summary] = {}
        self._edges = 0
        self._codes: dict[tuple[int, int], Code] = {}
        self._instructions = 0
        self._prepared: dict[int, Elf] = {}  # keeps the objects, so that an id is of one

    @property
    def exhausted(self) -> bool:
        """Return whether the limit of work is reached."""
        return self._work <= 0

    def find_calls(self, objects: Sequence[Object], opened: Collection[int] = ()) -> Calls:
        """Return the system calls of a program.

        ``objects`` are the program, then its libraries in the order of the loader. ``opened`` are
        the indexes of those that are opened at run time: all of their functions can be called.
        """
        for _, elf in objects:
            self._prepare(elf)
        return _Walk(self, objects).run(opened)

    def _prepare(self, elf: Elf) -> None:
        """Find the functions of an object that does not list them."""
        if id(elf) in self._prepared:
            return
        self._prepared[id(elf)] = elf
        if elf.has_frames or elf.go or elf.code_size > CODE_LIMIT:
            return
        found = list(elf.pointers.values())
        for start, end in elf.blocks():
            if self.exhausted:
                break
            code = self._disassemble(elf, start, end)
            for kind, address, index in code.references():
                called = kind == "call" and code.instructions[index].name in ("call", "bl")
                if called or (kind == "address" and not address % 16):
                    found.append(address)
        elf.add_functions(found)

    def _disassemble(self, elf: Elf, start: int, end: int) -> Code:
        self._work -= end - start if elf.machine == "x86_64" else (end - start) // 4
        data = elf.read(start, end - start)
        return Code(elf.machine, start, instructions(elf.machine, data, start), elf.relocated)

    def code(self, elf: Elf, start: int) -> Code:
        """Return the code of a function."""
        key = (id(elf), start)
        code = self._codes.get(key)
        if code is None:
            code = self._disassemble(elf, start, elf.function(start)[1])
            self._instructions += len(code.instructions)
            while self._instructions > _KEPT_INSTRUCTIONS and self._codes:
                oldest = next(iter(self._codes))
                self._instructions -= len(self._codes.pop(oldest).instructions)
            self._codes[key] = code
        return code

    def summary(self, elf: Elf, start: int) -> _Summary:
        """Return the uses of a function."""
        key = (id(elf), start)
        summary = self._summaries.get(key)
        if summary is None:
            code = self.code(elf, start)
            summary = _Summary(
                tuple(dict.fromkeys(_edges(elf, code))),
                tuple(self._numbers(code)),
                code.ends,
            )
            if self._edges < _KEPT_EDGES:
                self._edges += len(summary.edges)
                self._summaries[key] = summary
        return summary

    def _numbers(self, code: Code) -> Iterator[Numbers]:
        for instruction in code.system_calls():
            if self.exhausted:
                return
            numbers = code.number(instruction)
            self._work -= numbers.steps
            yield numbers

    def argument(self, elf: Elf, start: int, instruction: int, parameter: Place) -> Numbers:
        """Return the values of a parameter at a call in a function."""
        numbers = self.code(elf, start).argument(instruction, parameter)
        self._work -= numbers.steps
        return numbers

    def calls_of_import(self, elf: Elf, name: str) -> list[tuple[int, int]]:
        """Return the calls of an imported function: the caller's start, and the call's address."""
        if name not in elf.imports or elf.machine != "x86_64":
            return []
        self._work -= elf.code_size // 32
        uses = [address for address, slot in _slot_uses(elf) if elf.slots.get(slot) == name]
        stubs = {stub for address in uses for stub in (address, address - 4)}  # behind endbr64
        return [(elf.function(address)[0], address) for address in uses] + self.calls(elf, stubs)

    def calls(self, elf: Elf, targets: Collection[int]) -> list[tuple[int, int]]:
        """Return the direct calls of functions: the caller's start, and the call's address."""
        self._work -= elf.code_size // 32
        return [
            (elf.function(address)[0], address)
            for address, target in _direct_calls(elf)
            if target in targets
        ]


class _Walk:
    def __init__(self, analysis: Analysis, objects: Sequence[Object]) -> None:
        self.analysis = analysis
        self.objects = objects
        self.pending: deque[Function] = deque()
        self.seen: set[Function] = set()
        self.whole = {  # before any function is reached
            index for index, (_, elf) in enumerate(objects) if elf.code_size > CODE_LIMIT or elf.go
        }
        self.bound: dict[str, list[Function]] = {}
        self.imported: set[str] = set()
        self.callers: dict[Function, set[tuple[Function, int]]] = {}
        self.parameters: dict[Function, set[Place]] = {}
        self.traced: deque[tuple[Function, int, Place]] = deque()
        self.calls: dict[int, Call] = {}
        self.unknown: dict[Function, None] = {}
        self.unread: list[str] = []
        self.parents: dict[Function, Function] = {}
        self.current: Function | None = None
        self.names: list[dict[int, str]] = []
        for index, (_, elf) in enumerate(objects):
            names: dict[int, str] = {}
            for name, addresses in elf.exports.items():
                for address in addresses:
                    if len(names.get(address, "_" * 99)) > len(name):
                        names[address] = name
                if name not in self.bound:
                    self.bound[name] = [(index, address) for address in addresses]
            self.names.append(names)

    def run(self, opened: Collection[int]) -> Calls:
        for index in range(len(self.objects)):  # the program first, so that roots are its imports
            self.start(index, opened=index in opened)
            while (self.pending or self.traced) and not self.analysis.exhausted:
                if self.pending:
                    self.visit(self.pending.popleft())
                else:
                    self.take(*self.traced.popleft())
            self.current = None
        return Calls(
            tuple(sorted(self.calls.values())),
            tuple(dict.fromkeys(self.describe(function) for function in self.unknown)),
            tuple(self.unread),
            not self.analysis.exhausted,
        )

    def start(self, index: int, *, opened: bool) -> None:
        """Mark the functions of an object that run without being called by name."""
        elf = self.objects[index].elf
        if index in self.whole:
            for name in elf.slots.values():
                self.reach_import(name)
            if not index:
                self.reach_whole(index)
            elif "syscall" in elf.imports:
                self.unread.append(self.objects[index].path)
            return
        for address in elf.initial:
            self.reach(index, address)
        for address in elf.pointers.values():
            self.reach(index, address)
        if opened:
            for addresses in elf.exports.values():
                for address in addresses:
                    self.reach(index, address)
        if "dlsym" in elf.imports:
            self.reach_named(elf)

    def describe(self, function: Function) -> str:
        index, start = function
        return f"{self.objects[index].path}: {self.name(function) or hex(start)}"

    def name(self, function: Function) -> str:
        return self.names[function[0]].get(function[1], "")

    # -- reach ----------------------------------------------------------------------------------

    def reach(self, index: int, address: int) -> list[Function]:
        """Mark the function at an address, or the import of a stub; return the functions."""
        elf = self.objects[index].elf
        target = _target(elf, address)
        if isinstance(target, str):
            return self.reach_import(target)
        if target is None:
            return []
        function = (index, target)
        if function not in self.seen and index not in self.whole:
            self.seen.add(function)
            self.pending.append(function)
            if self.current is not None:
                self.parents[function] = self.current
        return [function]

    def reach_import(self, name: str) -> list[Function]:
        functions = self.bound.get(name, [])
        if name not in self.imported:
            self.imported.add(name)
            for index, address in functions:
                self.reach(index, address)
        return functions

    def reach_named(self, elf: Elf) -> None:
        """Mark the exported functions whose names are texts of an object that looks up symbols."""
        for segment in elf.segments:
            if not segment.executable:
                end = segment.offset + segment.size
                for match in _SYMBOL.finditer(elf.data, segment.offset, end):
                    name = match[0].decode("ascii")
                    if name in self.bound:
                        self.reach_import(name)

    def reach_whole(self, index: int) -> None:
        """Visit the functions of an object that enter the kernel."""
        elf = self.objects[index].elf
        pattern = _SYSCALL[elf.machine]
        for segment in elf.code:
            end = segment.offset + segment.size
            at = elf.data.find(pattern, segment.offset, end)
            while at >= 0:
                address = at - segment.offset + segment.address
                function = (index, elf.function(address)[0])
                if function not in self.seen and elf.in_function(address):
                    self.seen.add(function)
                    self.pending.append(function)
                at = elf.data.find(pattern, at + 1, end)
        for caller, address in self.analysis.calls_of_import(elf, "syscall"):
            for target in self.bound.get("syscall", ()):
                self.add_call(index, caller, address, target)

    # -- visit ----------------------------------------------------------------------------------

    def visit(self, function: Function) -> None:
        index, start = function
        self.current = function
        elf = self.objects[index].elf
        summary = self.analysis.summary(elf, start)
        if index not in self.whole:
            for target, instruction in summary.edges:
                reached = (
                    self.reach_import(target)
                    if isinstance(target, str)
                    else self.reach(index, target)
                )
                if instruction >= 0:
                    for each in reached:
                        self.add_caller(each, function, instruction)
            if not summary.ends:
                self.reach(index, elf.function(start)[1])
        for numbers in summary.numbers:
            self.add_numbers(function, numbers)

    def add_numbers(self, function: Function, numbers: Numbers) -> None:
        for number in numbers.constants:
            if number not in self.calls:
                path = self.objects[function[0]].path
                self.calls[number] = Call(number, path, self.name(function), *self.root(function))
        if not numbers.constants and not numbers.parameters:
            self.unknown[function] = None
        for parameter in numbers.parameters:
            self.add_parameter(function, parameter)

    def root(self, function: Function) -> tuple[str, str]:
        """Return the import of the program that leads to a function, and where the way starts."""
        name = ""
        while function[0] and function in self.parents:
            name, function = self.name(function), self.parents[function]
        return name if not function[0] else "", self.objects[function[0]].path

    # -- wrappers -------------------------------------------------------------------------------

    def add_parameter(self, function: Function, parameter: Place) -> None:
        """Mark a function whose parameter is a number, and take the constants of its callers."""
        known = self.parameters.setdefault(function, set())
        if parameter in known:
            return
        known.add(parameter)
        if len(known) > _PARAMETERS_LIMIT:
            self.unknown[function] = None
            return
        if function[0] in self.whole:
            self.find_callers(function)
        for caller, instruction in self.callers.get(function, ()):
            self.traced.append((caller, instruction, parameter))

    def add_caller(self, target: Function, caller: Function, instruction: int) -> None:
        callers = self.callers.setdefault(target, set())
        if (caller, instruction) not in callers:
            callers.add((caller, instruction))
            for parameter in self.parameters.get(target, ()):
                self.traced.append((caller, instruction, parameter))

    def take(self, caller: Function, instruction: int, parameter: Place) -> None:
        """Take the numbers that a call passes to a wrapper."""
        index, start = caller
        elf = self.objects[index].elf
        self.add_numbers(caller, self.analysis.argument(elf, start, instruction, parameter))

    def find_callers(self, function: Function) -> None:
        """Find the calls of a function in an object of which all code counts as reached."""
        index, start = function
        elf = self.objects[index].elf
        for caller, address in self.analysis.calls(elf, (start,)):
            if self.analysis.exhausted:
                return
            self.add_call(index, caller, address, function)

    def add_call(self, index: int, caller: int, address: int, target: Function) -> None:
        """Add the call of a function by its address."""
        code = self.analysis.code(self.objects[index].elf, caller)
        for n, instruction in enumerate(code.instructions):
            if instruction.address == address:
                self.add_caller(target, (index, caller), n)


def _target(elf: Elf, address: int) -> int | str | None:
    """Return the start of the function at an address, or the name of the import of a stub."""
    for _ in range(4):  # a stub may lead to one
        if not elf.in_code(address):
            return None
        stub = _STUB.match(elf.read(address, 16)) if elf.machine == "x86_64" else None
        if stub is None:
            break
        slot = address + stub.end() + int.from_bytes(stub[1], "little", signed=True)
        if slot in elf.slots:
            return elf.slots[slot]
        if slot not in elf.pointers:
            break
        address = elf.pointers[slot]
    return elf.function(address)[0]


def _edges(elf: Elf, code: Code) -> Iterator[_Edge]:
    """Yield the uses of functions in code."""
    for kind, address, instruction in code.references():
        if kind == "slot":
            if address in elf.slots:
                yield _Edge(elf.slots[address], instruction)
            elif address in elf.pointers:
                yield _Edge(elf.pointers[address], instruction)
        elif kind == "call":
            target = _target(elf, address)
            if target is not None:
                yield _Edge(target, instruction)
        elif elf.in_code(address) and elf.function(address)[0] == address:
            yield _Edge(address, -1)


def _slot_uses(elf: Elf) -> Iterator[tuple[int, int]]:
    """Yield the calls and jumps through slots: their address, and that of the slot."""
    for segment in elf.code:
        content = elf.data[segment.offset : segment.offset + segment.size]
        for match in _SLOT_USE.finditer(content):
            address = segment.address + match.start()
            yield address, address + 6 + int.from_bytes(match[1], "little", signed=True)


def _direct_calls(elf: Elf) -> Iterator[tuple[int, int]]:
    """Yield the direct calls and jumps: their address, and that of the target."""
    for segment in elf.code:
        content = elf.data[segment.offset : segment.offset + segment.size]
        if elf.machine == "x86_64":
            for match in _CALL.finditer(content):
                address = segment.address + match.start()
                yield address, address + 5 + int.from_bytes(match[1], "little", signed=True)
        else:
            for n, (word,) in enumerate(_word.iter_unpack(content[: len(content) & ~3])):
                if word & 0x7C000000 == 0x14000000:  # b, bl
                    address = segment.address + 4 * n
                    yield address, address + 4 * (((word & 0x3FFFFFF) ^ 0x2000000) - 0x2000000)
