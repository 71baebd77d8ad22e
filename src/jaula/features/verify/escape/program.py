"""Static x86_64 program of half a kilobyte that makes system calls from a table. Pure.

It is assembled here and needs no compiler, C library or file of the image. Sources: the ELF-64
object file format (elf(5)), the System V ABI for x86-64 (registers of a call) and, for the 32-bit
ABI, ``int 0x80`` as in linux/arch/x86/entry.

The table is a list of entries. Each group begins with a fork, so that effects on the process,
including its end, stay in the child:

    begin    fork; the child sets an alarm of 20 seconds, the parent waits for its status
    call     a 64-bit or x32 call (bit 30 of the number); six arguments
    call32   the same by int 0x80; arguments are cut to 32 bits, all data is below 4 GB
    threads  create threads until one is refused, or as many as requested; they end with the child
    burn     use the CPUs by as many threads as requested and the process itself, for a time
             in nanoseconds; the value is the CPU time of all of them, in nanoseconds
    end      print every answer and exit

Each entry has 16 bytes of answer: 8 of value (for ``begin`` the wait status), 4 that are 1 if it
was reached, 4 for the number of threads created. The answers are printed as letters a to p, two for
a byte, because a log is text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from jaula.features.verify.escape.assembler import Assembler

BEGIN, CALL, CALL32, THREADS, END, BURN = range(6)
ENTRY, ANSWER = 64, 16  # bytes
CODE_AT, DATA_AT = 0x400000, 0x800000
PAGE = 0x1000
ALARM = 20  # seconds; an emulated machine needs long to create thousands of threads

SYSTEM_CALLS = (
    "alarm",
    "clock_gettime",
    "clone",
    "exit_group",
    "fork",
    "mmap",
    "pause",
    "wait4",
    "write",
)
"""System calls of the program itself, without the table."""

Argument = int | bytes
"""A number, or bytes in the program's data whose address is passed."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of the table."""

    operation: int
    number: int = 0
    arguments: tuple[Argument, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """An answer; ``value`` is the call's result, negative for an errno, or a wait status."""

    value: int
    reached: bool
    count: int


JZ, JNZ, JS, JE, JB = "0f 84", "0f 85", "0f 88", "0f 84", "0f 82"
CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID = 1, 2


def _clock(a: Assembler, clock: int) -> None:
    """Append code for rax = nanoseconds of a clock; uses 16 bytes of stack."""
    a.number("bf", clock)  # mov edi, clock
    a("48 89 e6")  # mov rsi, rsp
    a.number("b8", 228)  # mov eax, SYS_clock_gettime
    a("0f 05")
    a.number("48 69 04 24", 1_000_000_000)  # imul rax, [rsp], 10^9
    a("48 03 44 24 08")  # add rax, [rsp+8]


def machine_code(entries: int) -> bytes:
    """Return the interpreter. rbx: answers; r12: entry; r14: its answer; the kernel keeps these."""
    size = entries * ANSWER
    a = Assembler()
    # mmap(0, size * 3 + 1, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0)
    a("31 ff")  # xor edi, edi
    a.number("be", size * 3 + PAGE)  # mov esi, bytes
    a.number("ba", 3)  # mov edx, PROT_READ | PROT_WRITE
    a.number("41 ba", 0x21)  # mov r10d, MAP_SHARED | MAP_ANONYMOUS
    a("49 c7 c0 ff ff ff ff")  # mov r8, -1
    a("45 31 c9")  # xor r9d, r9d
    a.number("b8", 9)  # mov eax, SYS_mmap
    a("0f 05")  # syscall
    a("48 89 c3")  # mov rbx, rax
    a("49 89 c6")  # mov r14, rax
    a.number("41 bc", DATA_AT)  # mov r12d, the table

    a.label("loop")
    a("41 8b 04 24")  # mov eax, [r12]
    a("83 f8 04")  # cmp eax, END
    a.jump("report", JE)
    a("85 c0")  # test eax, eax: BEGIN is 0
    a.jump("group", JZ)
    a.label("next")
    a("49 83 c4 40")  # add r12, ENTRY
    a("49 83 c6 10")  # add r14, ANSWER
    a.jump("loop")

    a.label("group")
    a.number("b8", 57)  # mov eax, SYS_fork
    a("0f 05")
    a("48 85 c0")  # test rax, rax
    a.jump("child", JZ)
    a("49 89 06")  # mov [r14], rax: an errno where nothing could be forked
    a.jump("next", JS)
    a("48 89 c7")  # mov rdi, rax
    a("4c 89 f6")  # mov rsi, r14: the status goes to the answer
    a("31 d2")  # xor edx, edx
    a("45 31 d2")  # xor r10d, r10d
    a.number("b8", 61)  # mov eax, SYS_wait4
    a("0f 05")
    a("41 c7 46 04 00 00 00 00")  # mov dword [r14+4], 0: a status has 32 bits
    a("41 c7 46 08 01 00 00 00")  # mov dword [r14+8], 1
    a.jump("next")

    a.label("child")
    a.number("bf", ALARM)  # mov edi, seconds
    a.number("b8", 37)  # mov eax, SYS_alarm
    a("0f 05")
    a.label("step")
    a("49 83 c4 40")  # add r12, ENTRY
    a("49 83 c6 10")  # add r14, ANSWER
    a("41 8b 04 24")  # mov eax, [r12]
    a("83 f8 01")  # cmp eax, CALL
    a.jump("call", JE)
    a("83 f8 02")  # cmp eax, CALL32
    a.jump("call32", JE)
    a("83 f8 03")  # cmp eax, THREADS
    a.jump("threads", JE)
    a("83 f8 05")  # cmp eax, BURN
    a.jump("burn", JE)
    a.label("leave")
    a("31 ff")  # xor edi, edi
    a.number("b8", 231)  # mov eax, SYS_exit_group
    a("0f 05")

    a.label("call")
    a("49 8b 7c 24 08")  # mov rdi, [r12+8]
    a("49 8b 74 24 10")  # mov rsi, [r12+16]
    a("49 8b 54 24 18")  # mov rdx, [r12+24]
    a("4d 8b 54 24 20")  # mov r10, [r12+32]
    a("4d 8b 44 24 28")  # mov r8, [r12+40]
    a("4d 8b 4c 24 30")  # mov r9, [r12+48]
    a("41 8b 44 24 04")  # mov eax, [r12+4]
    a("0f 05")  # syscall
    a.label("store")
    a("49 89 06")  # mov [r14], rax
    a("41 c7 46 08 01 00 00 00")  # mov dword [r14+8], 1
    a.jump("step")

    a.label("call32")
    a("53 55")  # push rbx; push rbp
    a("41 8b 5c 24 08")  # mov ebx, [r12+8]
    a("41 8b 4c 24 10")  # mov ecx, [r12+16]
    a("41 8b 54 24 18")  # mov edx, [r12+24]
    a("41 8b 74 24 20")  # mov esi, [r12+32]
    a("41 8b 7c 24 28")  # mov edi, [r12+40]
    a("41 8b 6c 24 30")  # mov ebp, [r12+48]
    a("41 8b 44 24 04")  # mov eax, [r12+4]
    a("cd 80")  # int 0x80
    a("5d 5b")  # pop rbp; pop rbx
    a("48 98")  # cdqe: the errno of a 32-bit call
    a.jump("store")

    a.label("threads")
    a("4d 8b 7c 24 08")  # mov r15, [r12+8]
    a.label("thread")
    a.number("bf", 0x50F00)  # mov edi, CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM
    a("31 f6")  # xor esi, esi: the same stack, of which nothing is used
    a("31 d2")  # xor edx, edx
    a("45 31 d2")  # xor r10d, r10d
    a("45 31 c0")  # xor r8d, r8d
    a.number("b8", 56)  # mov eax, SYS_clone
    a("0f 05")
    a("48 85 c0")  # test rax, rax
    a.jump("idle", JZ)
    a.jump("store", JS)
    a("41 ff 46 0c")  # inc dword [r14+12]
    a("49 ff cf")  # dec r15
    a.jump("thread", JNZ)
    a("31 c0")  # xor eax, eax: as many as requested
    a.jump("store")
    a.label("idle")
    a.number("b8", 34)  # mov eax, SYS_pause
    a("0f 05")
    a.jump("idle")

    a.label("burn")
    a("4d 8b 7c 24 08")  # mov r15, [r12+8]
    a.label("burner")
    a("4d 85 ff")  # test r15, r15
    a.jump("burning", JZ)
    a.number("bf", 0x50F00)  # mov edi, the flags of a thread
    a("31 f6 31 d2 45 31 d2 45 31 c0")  # xor esi, esi; edx; r10d; r8d
    a.number("b8", 56)  # mov eax, SYS_clone
    a("0f 05")
    a("48 85 c0")  # test rax, rax
    a.jump("spin", JZ)
    a.jump("store", JS)
    a("49 ff cf")  # dec r15
    a.jump("burner")
    a.label("spin")
    a.jump("spin")
    a.label("burning")
    a("48 83 ec 10")  # sub rsp, 16: a struct timespec
    _clock(a, CLOCK_MONOTONIC)
    a("49 89 c5")  # mov r13, rax
    a.label("burns")
    _clock(a, CLOCK_MONOTONIC)
    a("4c 29 e8")  # sub rax, r13
    a("49 3b 44 24 10")  # cmp rax, [r12+16]
    a.jump("burns", JB)
    _clock(a, CLOCK_PROCESS_CPUTIME_ID)
    a("48 83 c4 10")  # add rsp, 16
    a.jump("store")

    a.label("report")
    a("48 89 de")  # mov rsi, rbx
    a.number("48 8d bb", size)  # lea rdi, [rbx + size]
    a.number("b9", size)  # mov ecx, size
    a.label("letter")
    a("0f b6 06")  # movzx eax, byte [rsi]
    a("89 c2")  # mov edx, eax
    a("c0 e8 04")  # shr al, 4
    a("04 61")  # add al, 'a'
    a("80 e2 0f")  # and dl, 15
    a("80 c2 61")  # add dl, 'a'
    a("88 07")  # mov [rdi], al
    a("88 57 01")  # mov [rdi+1], dl
    a("48 83 c7 02")  # add rdi, 2
    a("48 ff c6")  # inc rsi
    a("ff c9")  # dec ecx
    a.jump("letter", JNZ)
    a("c6 07 0a")  # mov byte [rdi], newline
    a.number("bf", 1)  # mov edi, standard output
    a.number("48 8d b3", size)  # lea rsi, [rbx + size]
    a.number("ba", size * 2 + 1)  # mov edx, bytes
    a.number("b8", 1)  # mov eax, SYS_write
    a("0f 05")
    a("31 ff")  # xor edi, edi
    a.number("b8", 231)  # mov eax, SYS_exit_group
    a("0f 05")
    return a.finish()


def build(entries: Sequence[Entry]) -> bytes:
    """Return an executable that executes the table."""
    table = [*entries, Entry(END)]
    code = machine_code(len(entries))
    data = bytearray(ENTRY * len(table))
    for number, entry in enumerate(table):
        values = []
        for argument in entry.arguments:
            if isinstance(argument, bytes):
                values.append(DATA_AT + len(data))
                data += argument + bytes(-len(argument) % 16 + 16)
            else:
                values.append(argument & 0xFFFFFFFFFFFFFFFF)
        values += [0] * (6 - len(values))
        struct.pack_into("<II6Q", data, ENTRY * number, entry.operation, entry.number, *values)
    return _executable(code, bytes(data))


def _executable(code: bytes, data: bytes) -> bytes:
    """Return an ELF file with a code segment, a data segment and a non-executable stack."""
    headers = 64 + 3 * 56
    data_offset = -(-(headers + len(code)) // PAGE) * PAGE
    entry = CODE_AT + headers
    identity = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 2, 62, 1, entry, 64, 0, 0, 64, 56, 3, 0, 0, 0
    )
    segments = (
        (1, 5, 0, CODE_AT, headers + len(code), PAGE),  # PT_LOAD, R-X
        (1, 6, data_offset, DATA_AT, len(data), PAGE),  # PT_LOAD, RW-
        (0x6474E551, 6, 0, 0, 0, 16),  # PT_GNU_STACK, RW-
    )
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, align)
        for kind, flags, offset, address, size, align in segments
    )
    image = header + table + code
    return image + bytes(data_offset - len(image)) + data


def read(text: str, entries: int) -> list[Answer]:
    """Decode the answers that the program printed.

    :raises ValueError: when the output is incomplete.
    """
    letters = text.strip()
    if len(letters) != entries * ANSWER * 2 or not set(letters) <= set("abcdefghijklmnop"):
        raise ValueError(f"the probe printed {text[:80]!r} instead of {entries} answers")
    values = [ord(letter) - ord("a") for letter in letters]
    raw = bytes(high << 4 | low for high, low in zip(values[::2], values[1::2], strict=True))
    return [
        Answer(value, reached == 1, count)
        for value, reached, count in struct.iter_unpack("<qII", raw)
    ]
