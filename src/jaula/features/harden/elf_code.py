"""The machine code of one function: the addresses that it uses, and the numbers of system calls.

Capstone disassembles; its text of the operands is read here. A number is traced backwards from the
instruction to the constants that can reach it, through moves, the stack and all branches. If the
trace ends at the start of the function, the number is a parameter: callers have the constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import capstone

STEPS_LIMIT = 8_000  # instructions of one trace
_NUMBERS_LIMIT = 1024  # system calls of a kernel; larger constants are something else

Place = str | int  # a register, or an offset from the stack pointer
Use = Literal["call", "address", "slot"]


class Instruction(NamedTuple):
    """One instruction as capstone prints it."""

    address: int
    size: int
    name: str
    operands: str


class Reference(NamedTuple):
    """An address that an instruction uses: ``call`` for calls and jumps out of the function."""

    kind: Use
    address: int
    instruction: int  # index


class Numbers(NamedTuple):
    """The constants and parameters that a value can be; ``unknown`` if there are others.

    ``steps`` is how many instructions the trace has passed.
    """

    constants: frozenset[int]
    parameters: frozenset[Place]
    unknown: bool
    steps: int


class Code:
    """The code of one function. ``relocated``: its file can be loaded at any address."""

    def __init__(
        self, machine: str, address: int, instructions: list[Instruction], relocated: bool
    ) -> None:
        self._x86 = machine == "x86_64"
        self._start = address
        self._end = address
        if instructions:
            self._end = instructions[-1].address + instructions[-1].size
        self._absolute = not relocated
        self.instructions = instructions

    @property
    def ends(self) -> bool:
        """Return whether the code ends with a jump or a return, apart from padding."""
        for index in range(len(self.instructions) - 1, -1, -1):
            name, operands = self.instructions[index][2:]
            if not _is_padding(name, operands):
                return self._ends(index) or name in ("call", "bl")  # it may not return
        return True

    # -- uses -----------------------------------------------------------------------------------

    def system_calls(self) -> Iterator[int]:
        """Yield the indexes of instructions that enter the kernel."""
        name = "syscall" if self._x86 else "svc"
        for index, instruction in enumerate(self.instructions):
            if instruction.name == name:
                yield index

    def references(self) -> Iterator[Reference]:
        """Yield the addresses that the code uses, outside of the function or in data."""
        yield from self._references_x86() if self._x86 else self._references_arm()

    def _references_x86(self) -> Iterator[Reference]:
        for index, (address, size, name, operands) in enumerate(self.instructions):
            if operands.startswith("0x") and name[-4:] != "push":
                if _is_branch(name):
                    target = int(operands, 16)
                    if not self._start <= target < self._end or name == "call":
                        yield Reference("call", target, index)
            elif "[rip" in operands:
                match = _RIP.search(operands)
                if match is not None:
                    offset = int(match[2], 0)
                    target = address + size + (offset if match[1] == "+" else -offset)
                    if name == "lea":
                        yield Reference("address", target, index)
                    else:
                        called = name in ("call", "jmp", "bnd jmp", "notrack jmp")
                        yield Reference("slot", target, index if called else -1)
            if self._absolute and "0x" in operands and not _is_branch(name):
                for text in _HEX.findall(operands):
                    yield Reference("address", int(text, 16), index)

    def _references_arm(self) -> Iterator[Reference]:
        pages: dict[str, int] = {}
        for index, (_, _, name, operands) in enumerate(self.instructions):
            if name == "bl" or _is_branch_arm(name):
                target = int(operands.rpartition("#")[2], 0)
                if not self._start <= target < self._end or name == "bl":
                    yield Reference("call", target, index)
            elif name in ("adrp", "adr"):
                register, _, value = operands.partition(", #")
                pages[register] = int(value, 0)
                yield Reference("address", pages[register], index)
            elif name in ("add", "ldr") and (match := _ARM_OFFSET.match(operands)):
                base = pages.get(match[2])
                if base is not None:
                    kind: Use = "address" if name == "add" else "slot"
                    yield Reference(kind, base + int(match[3] or "0", 0), -1)

    # -- numbers --------------------------------------------------------------------------------

    def number(self, index: int) -> Numbers:
        """Return the numbers that a system call can have."""
        return self.trace(index, "rax" if self._x86 else "x8")

    def argument(self, index: int, parameter: Place) -> Numbers:
        """Return the values that the parameter of a called function can have at a call.

        ``parameter`` is a register, or an offset from the stack pointer at the callee's start.
        """
        name = self.instructions[index].name
        if isinstance(parameter, int) and self._x86 and name == "call":
            parameter -= 8  # the return address
        return self.trace(index, parameter)

    def trace(self, index: int, place: Place) -> Numbers:
        """Return the values of a place before an instruction."""
        constants: set[int] = set()
        parameters: set[Place] = set()
        unknown = False
        pending: list[tuple[int, Place]] = [(index, place)]
        switched: set[Place] = set()  # for which the indirect jumps were passed
        seen: set[tuple[int, Place]] = set()  # instructions that were passed, with the place after
        while pending:
            at, place = pending.pop()
            if at == 0:
                parameters.add(place)
            before = self._before(at)
            if before is self._indirect_jumps:
                if place in switched:
                    continue
                switched.add(place)
            for previous in before:
                if (previous, place) in seen:
                    continue
                seen.add((previous, place))
                for value in self._transfer(previous, place):
                    if value is None:
                        unknown = True
                    elif isinstance(value, _Constant):
                        if 0 <= value.value < _NUMBERS_LIMIT:
                            constants.add(value.value)
                    else:
                        pending.append((previous, value))
            if len(seen) > STEPS_LIMIT:
                unknown = True
                break
        return Numbers(frozenset(constants), frozenset(parameters), unknown, len(seen))

    def _before(self, index: int) -> Sequence[int]:
        """Return the instructions after which one can be executed, by index."""
        sources = self._sources.get(index, [])
        if index > 0 and not self._ends(index - 1):
            return [*sources, index - 1]
        if index > 0 and not sources and not _is_padding(*self.instructions[index][2:]):
            return self._indirect_jumps  # a case of a switch, or not reached
        return sources

    def _ends(self, index: int) -> bool:
        name = self.instructions[index].name
        if self._x86:
            return name in ("jmp", "ret", "hlt", "ud2", "notrack jmp", "bnd jmp", "bnd ret")
        return name in ("b", "br", "ret", "brk", "udf")

    @cached_property
    def _indirect_jumps(self) -> list[int]:
        names = ("jmp", "notrack jmp", "bnd jmp") if self._x86 else ("br",)
        return [
            index
            for index, (_, _, name, operands) in enumerate(self.instructions)
            if name in names and not operands.startswith("0x")
        ]

    @cached_property
    def _sources(self) -> dict[int, list[int]]:
        """Return the jumps to each instruction, by index."""
        indexes = {instruction.address: n for n, instruction in enumerate(self.instructions)}
        sources: dict[int, list[int]] = {}
        for index, (_, _, name, operands) in enumerate(self.instructions):
            if self._x86:
                branch = operands.startswith("0x") and _is_branch(name) and name != "call"
            else:
                branch = _is_branch_arm(name)
            if branch:
                target = indexes.get(int(operands.rpartition("#")[2], 0))
                if target is not None:
                    sources.setdefault(target, []).append(index)
        return sources

    def _transfer(self, index: int, place: Place) -> tuple[Place | _Constant | None, ...]:
        """Return where the value of a place after an instruction was before it; None if unknown."""
        name, operands = self.instructions[index][2:]
        if self._x86:
            return _transfer_x86(name, operands, place)
        return _transfer_arm(name, operands, place)


class _Constant(NamedTuple):
    value: int


def _transfer_x86(name: str, operands: str, place: Place) -> tuple[Place | _Constant | None, ...]:
    target, _, source = operands.partition(", ")
    if isinstance(place, int):
        if name == "push":
            return (_value(target),) if place == 0 else (place - 8,)
        if name == "pop":
            return (None,) if target == "rsp" else (place + 8,)
        if target == "rsp" and name in ("sub", "add") and _IMMEDIATE.fullmatch(source):
            amount = int(source, 0)
            return (place - amount if name == "sub" else place + amount,)
        if target == "rsp" and name not in ("cmp", "test", "push"):
            return (None,)
        if name in ("leave", "syscall"):
            return (None,) if name == "leave" else (place,)
        if name == "mov" and _slot(target) == place:
            return (_value(source),)
        return (place,)
    if name == "call":
        return (None,) if place in _CLOBBERED else (place,)
    if name == "syscall":
        return (None,) if place in ("rax", "rcx", "r11") else (place,)
    if name in _READ_ONLY or _is_branch(name):
        return (place,)
    if name == "pop":
        return (0,) if target == place else (place,)
    if name == "xchg":
        left, right = _REGISTERS.get(target), _REGISTERS.get(source)
        if place in (left, right):
            return (right if place == left else left,)
        return (place,)
    if name in ("cdq", "cqo", "mul", "div", "idiv", "cdqe", "cwde", "rep movsq", "cpuid", "rdtsc"):
        return (None,) if place in ("rax", "rdx", "rcx", "rsi", "rdi", "rbx") else (place,)
    if _REGISTERS.get(target) != place or name == "push":
        return (place,)
    if name in ("mov", "movabs", "movsxd", "movzx"):
        return (_value(source),)
    if name == "xor" and source == target:
        return (_Constant(0),)
    if name == "or" and source in ("-1", "0xffffffff", "0xffffffffffffffff"):
        return (_Constant(-1),)
    if name.startswith("cmov"):
        return (place, _value(source))
    return (None,)


def _transfer_arm(name: str, operands: str, place: Place) -> tuple[Place | _Constant | None, ...]:
    parts = operands.split(", ")
    stack = _ARM_STACK.search(operands)
    if isinstance(place, int):
        return (_stack_arm(name, parts, stack, place),)
    if name in ("bl", "blr", "svc"):
        clobbered = place == "x0" if name == "svc" else int(place[1:]) <= 18
        return (None,) if clobbered else (place,)
    if name.startswith(("st", "cmp", "cmn", "ccm", "tst", "b", "cb", "tb", "prfm", "nop", "ret")):
        return (place,)
    if _arm_register(parts[0]) != place:
        if name == "ldp" and _arm_register(parts[1]) == place:
            return (_offset(stack) + 8,) if stack and parts[0][0] == "x" else (None,)
        return (place,)
    if name in ("mov", "movz", "sxtw", "orr"):
        source = parts[-1] if name != "orr" or parts[1] in ("wzr", "xzr") else ""
        if source.startswith("#"):
            return (_Constant(int(source[1:], 0)),)
        if source in ("wzr", "xzr"):
            return (_Constant(0),)
        return (_arm_register(source) or None,)
    if name in ("ldr", "ldp") and stack and not stack[3]:
        return (_offset(stack),)
    if name == "csel":
        return tuple(_arm_register(part) or None for part in parts[1:3])
    return (None,)


def _stack_arm(
    name: str, parts: list[str], stack: re.Match[str] | None, place: int
) -> Place | None:
    """Return where the value at an offset from the stack pointer was before an instruction."""
    if name in ("sub", "add") and parts[0] == "sp":
        if parts[1] != "sp" or not parts[2].startswith("#"):
            return None
        amount = int(parts[2][1:], 0)
        return place - amount if name == "sub" else place + amount
    if stack is None:
        return None if parts[0] == "sp" and name == "mov" else place
    if stack[3]:  # [sp, #N]! or [sp], #N: the stack pointer changes
        amount = int(stack[4] or stack[2] or "0", 0)
        offset = 0 if stack[3] == "!" else amount
        if name in ("str", "stp") and stack[3] == "!":
            if place == offset:
                return _arm_register(parts[0]) or None
            if name == "stp" and place == offset + 8:
                return _arm_register(parts[1]) or None
        return place + amount
    if name in ("str", "stp"):
        offset = _offset(stack)
        if place == offset:
            return _arm_register(parts[0]) or None
        if name == "stp" and place == offset + 8:
            return _arm_register(parts[1]) or None
    return place


def _offset(stack: re.Match[str]) -> int:
    return int(stack[2] or "0", 0)


def _value(text: str) -> Place | _Constant | None:
    """Return the place or constant of an operand, None if it is another one."""
    if text in _REGISTERS:
        return _REGISTERS[text]
    if _IMMEDIATE.fullmatch(text):
        return _Constant(int(text, 0))
    return _slot(text)


def _slot(text: str) -> int | None:
    match = _STACK.search(text)
    if match is None:
        return None
    return int(match[2], 0) * (-1 if match[1] == "-" else 1) if match[2] else 0


def _is_padding(name: str, operands: str) -> bool:
    return "nop" in name or name in ("int3", ".byte") or (name, operands) == ("xchg", "ax, ax")


def _is_branch_arm(name: str) -> bool:
    """Return whether an instruction of aarch64 is a branch to an address; ``tbl`` is not one."""
    return name in ("b", "cbz", "cbnz", "tbz", "tbnz") or name.startswith("b.")


def _is_branch(name: str) -> bool:
    return name[0] == "j" or name in ("call", "notrack jmp", "bnd jmp", "loop", "xbegin")


def _arm_register(text: str) -> str:
    return "x" + text[1:] if text[:1] in ("w", "x") and text[1:].isdigit() else ""


def instructions(machine: str, data: bytes, address: int) -> list[Instruction]:
    """Return the instructions of code at an address; bytes that are none are skipped."""
    return [Instruction(*item) for item in _engine(machine).disasm_lite(data, address)]


def _engine(machine: str) -> Any:
    engine = _engines.get(machine)
    if engine is None:
        if machine == "x86_64":
            engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        else:
            engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        engine.skipdata = True
        _engines[machine] = engine
    return engine


_engines: dict[str, Any] = {}

_RIP = re.compile(r"\[rip ([+-]) (0x[0-9a-f]+|[0-9]+)\]")
_HEX = re.compile(r"0x[0-9a-f]+")
_IMMEDIATE = re.compile(r"-?(0x[0-9a-f]+|[0-9]+)")
_STACK = re.compile(r"^[dq]word ptr \[rsp(?: ([+-]) (0x[0-9a-f]+|[0-9]+))?\]")
_ARM_OFFSET = re.compile(r"(x\d+), \[?(x\d+)(?:, #(0x[0-9a-f]+|\d+))?\]?")

_ARM_STACK = re.compile(r"\[sp(, #(-?\w+))?\](!|, #(?=(-?\w+)))?")

_READ_ONLY = frozenset({"cmp", "test", "nop", "push", "ud2", "hlt", "endbr64", "ret", "lock or"})
_CLOBBERED = frozenset({"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"})
_REGISTERS = {
    **{n: "r" + n[1:] for n in ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp")},
    **{n: n for n in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp")},
    **{f"r{n}{s}": f"r{n}" for n in range(8, 16) for s in ("", "d")},
    "al": "rax", "ax": "rax", "dil": "rdi", "sil": "rsi", "cl": "rcx", "dl": "rdx",
}  # fmt: skip
