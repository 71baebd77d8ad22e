"""What system call filters answer, by running them here: is one as strict as another? Pure.

Two programs can differ in every instruction and refuse the same: another runtime compiles with
libseccomp, another version of this engine lays its tree out anew. So where a program is not the
expected one byte by byte, both are asked about every call of every ABI, and about arguments at
each value that either of them compares with.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from jaula.kernel.seccomp import SECCOMP_RET_ALLOW, X32_SYSCALL_BIT
from jaula.security.seccomp.compiler import severity

ABIS: tuple[tuple[str, int, int], ...] = (
    ("x86_64", 0xC000003E, 0),
    ("i386", 0x40000003, 0),
    ("x32", 0xC000003E, X32_SYSCALL_BIT),
    ("aarch64", 0xC00000B7, 0),
    ("arm", 0x40000028, 0),
)
"""(name, audit token of struct seccomp_data, bit that is set in every number)."""

SYSCALL_LIMIT = (
    700  # above every number of Linux 6.18, so that calls of tomorrow are asked about too
)
ARGUMENTS_AT = 16  # offset of the arguments in struct seccomp_data
ALLOWED = severity(SECCOMP_RET_ALLOW)
Code = Sequence[tuple[int, int, int, int]]


def decode(program: bytes) -> Code:
    """Instructions as (code, jt, jf, k)."""
    return list(struct.iter_unpack("=HBBI", program))


def run(code: Code, data: bytes) -> tuple[int, bool]:
    """The answer to a ``struct seccomp_data``, and whether an argument was looked at.

    Raises ``ValueError`` for an instruction that no compiler of filters writes.
    """
    accumulator, index, at, looked = 0, 0, 0, False
    memory = [0] * 16
    while at < len(code):
        operation, jt, jf, k = code[at]
        at += 1
        if operation == 0x20:  # ld [k]
            (accumulator,) = struct.unpack_from("=I", data, k)
            looked = looked or k >= ARGUMENTS_AT
        elif operation == 0x06:  # ret k
            return k, looked
        elif operation == 0x05:  # ja
            at += k
        elif operation in _JUMPS:
            at += jt if _JUMPS[operation](accumulator, k) else jf
        elif operation == 0x54:  # and
            accumulator &= k
        elif operation == 0x02:  # st M[k]
            memory[k] = accumulator
        elif operation == 0x60:  # ld M[k]
            accumulator = memory[k]
        elif operation == 0x07:  # tax
            index = accumulator
        elif operation == 0x87:  # txa
            accumulator = index
        else:
            raise ValueError(f"instruction {operation:#x} of a filter is not known here")
    raise ValueError("a filter ends without an answer")


_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}


def more_permissive(wanted: bytes, found: Sequence[bytes]) -> list[str]:
    """Calls that ``wanted`` refuses and all of ``found`` together let through.

    Of several filters the kernel takes the most restrictive answer.
    """
    expected, actual = decode(wanted), [decode(program) for program in found]
    told: dict[str, None] = {}
    values = sorted({pair for code in (expected, *actual) for pair in _compared(code)})
    for abi, token, bit in ABIS:
        for number in range(SYSCALL_LIMIT):
            for arguments in _samples(expected, actual, token, number | bit, values):
                data = struct.pack("=IIQ6Q", number | bit, token, 0, *arguments)
                answer = severity(run(expected, data)[0])
                together = min((severity(run(code, data)[0]) for code in actual), default=ALLOWED)
                if together == ALLOWED and answer < ALLOWED:
                    told[f"{abi} {number}"] = None
    return list(told)


def _samples(
    expected: Code,
    actual: Sequence[Code],
    token: int,
    number: int,
    values: Sequence[tuple[int, int]],
) -> Iterator[list[int]]:
    """Arguments to ask about; more than one set where a program looks at them."""
    nothing = [0] * 6
    yield nothing
    data = struct.pack("=IIQ6Q", number, token, 0, *nothing)
    if any(run(code, data)[1] for code in (expected, *actual)):
        for index, value in values:
            for near in (value, value ^ 1, value | 1 << 32, 0xFFFFFFFF):
                yield [near if n == index else 0 for n in range(6)]


def _compared(code: Code) -> Iterator[tuple[int, int]]:
    """(index of an argument, value that its lower half is compared with)."""
    offset = 0
    for operation, _, _, k in code:
        if operation == 0x20:
            offset = k
        elif operation in _JUMPS and offset >= ARGUMENTS_AT and (offset - ARGUMENTS_AT) % 8 == 0:
            yield (offset - ARGUMENTS_AT) // 8, k
