"""Compare system call filters by interpreting them: is one as strict as another? Pure.

Two programs can differ in every instruction and still refuse the same calls: another runtime
compiles with libseccomp, another version of this engine emits another tree. If a program is not the
expected one byte by byte, both are evaluated for every call of every ABI, and for arguments at each
value that either of them compares with.
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

SYSCALL_LIMIT = 700  # above every number of Linux 6.18, to include future calls
ARGUMENTS_AT = 16  # offset of the arguments in struct seccomp_data
ALLOWED = severity(SECCOMP_RET_ALLOW)
Code = Sequence[tuple[int, int, int, int]]


def decode(program: bytes) -> Code:
    """Return the instructions as (code, jt, jf, k)."""
    return list(struct.iter_unpack("=HBBI", program))


def run(code: Code, data: bytes) -> tuple[int, bool]:
    """Return the result for a ``struct seccomp_data``, and whether an argument was read.

    :raises ValueError: for an instruction that no filter compiler emits.
    """
    accumulator, index, pc, argument_read = 0, 0, 0, False
    memory = [0] * 16
    while pc < len(code):
        operation, jt, jf, k = code[pc]
        pc += 1
        if operation == 0x20:  # ld [k]
            (accumulator,) = struct.unpack_from("=I", data, k)
            argument_read = argument_read or k >= ARGUMENTS_AT
        elif operation == 0x06:  # ret k
            return k, argument_read
        elif operation == 0x05:  # ja
            pc += k
        elif operation in _JUMPS:
            pc += jt if _JUMPS[operation](accumulator, k) else jf
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
            raise ValueError(f"unknown filter instruction {operation:#x}")
    raise ValueError("a filter ends without a return instruction")


_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}


def more_permissive(expected: bytes, loaded: Sequence[bytes]) -> list[str]:
    """Return calls that ``expected`` refuses and the ``loaded`` filters together allow.

    Of several filters the kernel applies the most restrictive result.
    """
    expected_code, actual = decode(expected), [decode(program) for program in loaded]
    differences: dict[str, None] = {}
    values = sorted({pair for code in (expected_code, *actual) for pair in _compared(code)})
    for abi, token, bit in ABIS:
        for number in range(SYSCALL_LIMIT):
            for arguments in _samples(expected_code, actual, token, number | bit, values):
                data = struct.pack("=IIQ6Q", number | bit, token, 0, *arguments)
                expected_result = severity(run(expected_code, data)[0])
                actual_result = min(
                    (severity(run(code, data)[0]) for code in actual), default=ALLOWED
                )
                if actual_result == ALLOWED and expected_result < ALLOWED:
                    differences[f"{abi} {number}"] = None
    return list(differences)


def _samples(
    expected: Code,
    actual: Sequence[Code],
    token: int,
    number: int,
    values: Sequence[tuple[int, int]],
) -> Iterator[list[int]]:
    """Yield arguments to evaluate; more than one set if a program reads arguments."""
    nothing = [0] * 6
    yield nothing
    data = struct.pack("=IIQ6Q", number, token, 0, *nothing)
    if any(run(code, data)[1] for code in (expected, *actual)):
        for index, value in values:
            for near in (value, value ^ 1, value | 1 << 32, 0xFFFFFFFF):
                yield [near if n == index else 0 for n in range(6)]


def _compared(code: Code) -> Iterator[tuple[int, int]]:
    """Yield (index of an argument, value that its lower half is compared with)."""
    offset = 0
    for operation, _, _, k in code:
        if operation == 0x20:
            offset = k
        elif operation in _JUMPS and offset >= ARGUMENTS_AT and (offset - ARGUMENTS_AT) % 8 == 0:
            yield (offset - ARGUMENTS_AT) // 8, k
