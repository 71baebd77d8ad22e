"""The executable of a launcher: it executes another program with more arguments. Pure.

It is a static ELF file of some 400 bytes without data. Its code copies its arguments below the
stack pointer, with others before them, and calls execve(2). If that fails, the status is 126.

Sources: elf(5); the stack of a new process and the registers of a system call in the System V ABI
of x86-64, in the Procedure Call Standard of AArch64 and in the RISC-V ELF psABI; the kernel's
``asm-generic/unistd.h``, whose numbers AArch64 and RISC-V have.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import NamedTuple

ELF = b"\x7fELF\x02\x01"
"""The beginning of an ELF file of 64 bits, little-endian."""

_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_BASE = 0x400000  # address at which a launcher is loaded
_PAGE = 0x10000  # bytes: the largest page of these machines
_EXECVE, _EXIT_GROUP = 221, 94  # asm-generic/unistd.h
_NOT_EXECUTED = 126  # exit status

Words = tuple[str | None, ...]
"""Arguments; None stands for the launcher's own argument 0."""

Code = Callable[[int, tuple[int, ...], Words], bytes]
"""Returns the machine code for the addresses of the path and of the words."""


class Machine(NamedTuple):
    """A machine: its number in an ELF header, its code, and its names of library directories."""

    number: int
    code: Code
    triplet: str
    more_libraries: tuple[str, ...] = ()


def launcher(machine: Machine, path: str, words: Words) -> bytes:
    """Return an executable that executes ``path`` with these arguments, then its own."""
    header = 64 + 2 * 56
    strings, addresses = b"", []
    code_size = len(machine.code(_BASE, (_BASE,) * len(words), words))
    start = _BASE + header + code_size
    for text in (path, *(word or "" for word in words)):
        addresses.append(start + len(strings))
        strings += os.fsencode(text) + b"\0"
    code = machine.code(addresses[0], tuple(addresses[1:]), words)
    size = header + len(code) + len(strings)
    elf = struct.pack(
        "<6sB9xHHIQQQIHHHHHH",
        *(ELF, 1, 2, machine.number, 1, _BASE + header, 64, 0, 0, 64, 56, 2, 64, 0, 0),
    )
    load = struct.pack("<IIQQQQQQ", _PT_LOAD, 5, 0, _BASE, _BASE, size, size, _PAGE)
    stack = struct.pack("<IIQQQQQQ", _PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16)
    return elf + load + stack + code + strings


def _x86_64(path: int, addresses: tuple[int, ...], words: Words) -> bytes:
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
    code += b"\xbf" + struct.pack("<I", _NOT_EXECUTED)  # mov edi, 126
    return code + b"\xb8\xe7\x00\x00\x00\x0f\x05"  # exit_group


def _instructions(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def _aarch64(path: int, addresses: tuple[int, ...], words: Words) -> bytes:
    def load(register: int, address: int) -> list[int]:
        return [
            0xD2800000 | (address & 0xFFFF) << 5 | register,  # movz register, #low
            0xF2A00000 | (address >> 16) << 5 | register,  # movk register, #high, lsl #16
        ]

    code = [
        0x910003E9,  # mov x9, sp: argc, the arguments, 0, the environment
        0xF940012A,  # ldr x10, [x9]
        0x8B0A0D22,  # add x2, x9, x10, lsl #3
        0x91004042,  # add x2, x2, #16
        0x9100014B | (len(words) + 2) << 10,  # add x11, x10, #n
        0xCB0B0D2C,  # sub x12, x9, x11, lsl #3
        0x927CED8C,  # and x12, x12, #-16
        0x9100019F,  # mov sp, x12
        0xAA0C03ED,  # mov x13, x12
    ]
    for address, word in zip(addresses, words, strict=True):
        code += [0xF940052E] if word is None else load(14, address)  # ldr x14, [x9, #8]
        code.append(0xF80085AE)  # str x14, [x13], #8
    code += [
        0x9100412F,  # add x15, x9, #16
        0xF84085EE,  # ldr x14, [x15], #8
        0xF80085AE,  # str x14, [x13], #8
        0xB5FFFFCE,  # cbnz x14, -8: the other arguments and the 0
        0xAA0C03E1,  # mov x1, x12
        *load(0, path),
        *(0xD2800008 | _EXECVE << 5, 0xD4000001),  # mov x8, execve; svc #0
        0xD2800000 | _NOT_EXECUTED << 5,  # mov x0, 126
        *(0xD2800008 | _EXIT_GROUP << 5, 0xD4000001),
    ]
    return _instructions(code)


def _riscv64(path: int, addresses: tuple[int, ...], words: Words) -> bytes:
    def load(register: int, address: int) -> list[int]:
        high = (address + 0x800) >> 12
        return [
            0x37 | register << 7 | high << 12,  # lui register, high
            0x1B | register << 7 | register << 15 | (address & 0xFFF) << 20,  # addiw ..., low
        ]

    code = [
        0x00010293,  # mv t0, sp: argc, the arguments, 0, the environment
        0x00013303,  # ld t1, 0(sp)
        0x00331393,  # slli t2, t1, 3
        0x00728633,  # add a2, t0, t2
        0x01060613,  # addi a2, a2, 16
        0x00038393 | (len(words) + 2) * 8 << 20,  # addi t2, t2, n
        0x40728E33,  # sub t3, t0, t2
        0xFF0E7E13,  # andi t3, t3, -16
        0x000E0113,  # mv sp, t3
        0x000E0E93,  # mv t4, t3
    ]
    for address, word in zip(addresses, words, strict=True):
        code += [0x0082BF03] if word is None else load(30, address)  # ld t5, 8(t0)
        code += [0x01EEB023, 0x008E8E93]  # sd t5, 0(t4); addi t4, t4, 8
    code += [
        0x01028F93,  # addi t6, t0, 16
        0x000FBF03,  # ld t5, 0(t6)
        0x01EEB023,  # sd t5, 0(t4)
        0x008F8F93,  # addi t6, t6, 8
        0x008E8E93,  # addi t4, t4, 8
        0xFE0F18E3,  # bnez t5, -16: the other arguments and the 0
        0x000E0593,  # mv a1, t3
        *load(10, path),
        *(0x00000893 | _EXECVE << 20, 0x00000073),  # li a7, execve; ecall
        0x00000513 | _NOT_EXECUTED << 20,  # li a0, 126
        *(0x00000893 | _EXIT_GROUP << 20, 0x00000073),
    ]
    return _instructions(code)


MACHINES = {
    "x86_64": Machine(62, _x86_64, "x86_64-linux-gnu"),
    "aarch64": Machine(183, _aarch64, "aarch64-linux-gnu"),
    "riscv64": Machine(243, _riscv64, "riscv64-linux-gnu", ("/lib64/lp64d", "/usr/lib64/lp64d")),
}
"""The machines for which launchers exist, by the name of uname(2)."""
