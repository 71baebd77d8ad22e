"""Compile rules on system calls to a classic BPF program for seccomp(2). Pure.

Follows Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/filter.h. The input is
a sequence of architectures with rules by system call number, the output is bytes.

libseccomp's generator is not used, for three reasons. It compiles 360 calls and three architectures
to chains of comparisons (1.1 ms to load, 13 to 75 ms to build). A rule that allows ``socket`` under
conditions makes it allow i386's ``socketcall(SYS_SOCKET)`` without conditions. If a call is allowed
unconditionally, it drops a rule that refuses the call for some arguments. This compiler makes a
balanced tree of ranges of numbers with one return value. The most restrictive rule that matches a
call decides.

Facts about the input of a filter: the system call number has 32 bits. x32 calls have bit 30 set and
the token of x86_64. With the number -1 a tracer skips a call. That number is never executed, and it
is allowed to keep the tracer's result. Arguments have 64 bits, zero-extended on 32-bit ABIs.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel.seccomp import (
    ARCHITECTURES,
    BPF_MAXINSNS,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
    X32_SYSCALL_BIT,
)

ENOSYS = 38

BPF_LD_W_ABS = 0x20
BPF_JA = 0x05
BPF_JEQ_K = 0x15
BPF_JGT_K = 0x25
BPF_JGE_K = 0x35
BPF_AND_K = 0x54
BPF_RET_K = 0x06

OFFSET_NR = 0  # struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]
OFFSET_ARCH = 4
OFFSET_ARGS = 16

_SEVERITY = (
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_USER_NOTIF,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_LOG,
    SECCOMP_RET_ALLOW,
)
"""The kernel's precedence of actions, most restrictive first."""

Code = list[tuple[int, int, int, int]]
"""Instructions as (code, jt, jf, k). Every block ends in a return, so blocks can be joined."""


class ArgCondition(msgspec.Struct, frozen=True):
    """A comparison of argument ``index``. ``op`` is OCI's name (``SCMP_CMP_*``).

    For ``SCMP_CMP_MASKED_EQ`` ``value`` is the mask and ``value_two`` the masked value.
    """

    index: int
    op: str
    value: int
    value_two: int = 0


class SyscallRule(msgspec.Struct, frozen=True):
    """A return value (SECCOMP_RET_*, data in the low 16 bits) if every condition holds."""

    return_value: int
    conditions: tuple[ArgCondition, ...] = ()


def severity(return_value: int) -> int:
    """Return the rank of a return value. 0 is the most restrictive."""
    return _SEVERITY.index(return_value & 0xFFFF0000)


def assemble(
    tables: Sequence[tuple[str, Mapping[int, Sequence[SyscallRule]]]], default: int
) -> bytes:
    """Return the program for ``(architecture name, rules by number)`` pairs, likeliest first.

    ``default`` is the return value for calls without a matching rule. If it is an errno, calls with
    a number above all of the table return ENOSYS, so that a newer C library falls back to an older
    call. An absent architecture returns KILL_PROCESS. Absent x32 returns ENOSYS, as a kernel
    without x32 does.

    :raises InvalidRequest: when the program has too many instructions.
    """
    by_token: dict[int, list[tuple[str, Mapping[int, Sequence[SyscallRule]]]]] = {}
    for name, table in tables:
        token = ARCHITECTURES["SCMP_ARCH_X86_64" if name == "SCMP_ARCH_X32" else name]
        by_token.setdefault(token, []).append((name, table))
    code: Code = [(BPF_LD_W_ABS, 0, 0, OFFSET_ARCH)]
    for token, members in by_token.items():
        block = [(BPF_LD_W_ABS, 0, 0, OFFSET_NR), *_binary_search(_segments(members, default))]
        code += _skip_unless_equal(token, len(block)) + block
    code.append(_return(SECCOMP_RET_KILL_PROCESS))
    if len(code) > BPF_MAXINSNS:
        raise InvalidRequest(
            f"the seccomp profile has {len(code)} instructions, the kernel allows {BPF_MAXINSNS}",
            hint="use fewer architectures or fewer rules on arguments",
        )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _segments(
    members: Iterable[tuple[str, Mapping[int, Sequence[SyscallRule]]]], default: int
) -> list[tuple[int, Code]]:
    """Return (first number, code) pairs that cover 32 bits. Equal neighbours are merged."""
    segments: list[tuple[int, Code]] = []

    def add(first: int, block: Code) -> None:
        if segments and segments[-1][0] == first:
            segments.pop()
        if not segments or segments[-1][1] != block:
            segments.append((first, block))

    add(0, [_return(default)])
    x32_seen = token_is_x86_64 = False
    for name, table in sorted(members, key=lambda member: member[0] == "SCMP_ARCH_X32"):
        x32_seen |= name == "SCMP_ARCH_X32"
        token_is_x86_64 |= name in ("SCMP_ARCH_X32", "SCMP_ARCH_X86_64")
        if name == "SCMP_ARCH_X32":
            add(X32_SYSCALL_BIT, [_return(default)])
        for number in sorted(table):
            add(number, _syscall_code(table[number], default))
            add(number + 1, [_return(default)])
        if table and default & 0xFFFF0000 == SECCOMP_RET_ERRNO:
            add(max(table) + 1, [_return(SECCOMP_RET_ERRNO | ENOSYS)])
    if token_is_x86_64 and not x32_seen:
        add(X32_SYSCALL_BIT, [_return(SECCOMP_RET_ERRNO | ENOSYS)])
    add(0xFFFFFFFF, [_return(SECCOMP_RET_ALLOW)])
    return segments


def _binary_search(segments: Sequence[tuple[int, Code]]) -> Code:
    """Return code for a binary search of the number in the accumulator."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _binary_search(segments[:middle]), _binary_search(segments[middle:])
    pivot = segments[middle][0]
    if len(below) <= 255:
        return [(BPF_JGE_K, len(below), 0, pivot), *below, *above]
    return [(BPF_JGE_K, 0, 1, pivot), (BPF_JA, 0, 0, len(below)), *below, *above]


def _syscall_code(rules: Sequence[SyscallRule], default: int) -> Code:
    """Return code for conditional rules by severity, then the unconditional one or the default."""
    unconditional = [rule.return_value for rule in rules if not rule.conditions]
    fallback = min(unconditional, key=severity) if unconditional else default
    code: Code = []
    conditional = {rule: None for rule in rules if rule.conditions}  # without duplicates, in order
    for rule in sorted(conditional, key=lambda rule: severity(rule.return_value)):
        if unconditional and severity(rule.return_value) >= severity(fallback):
            continue  # a condition does not weaken an unconditional rule
        block: Code = [_return(rule.return_value)]
        for condition in reversed(rule.conditions):
            block = _condition_code(condition, len(block)) + block
        code += block
    return [*code, _return(fallback)]


def _condition_code(condition: ArgCondition, skip: int) -> Code:
    """Return code that jumps over the next ``skip`` instructions unless the condition holds."""
    first = OFFSET_ARGS + 8 * condition.index
    low_at, high_at = (first, first + 4) if sys.byteorder == "little" else (first + 4, first)
    value = condition.value & 0xFFFFFFFFFFFFFFFF
    low, high = value & 0xFFFFFFFF, value >> 32
    load_low, load_high = (BPF_LD_W_ABS, 0, 0, low_at), (BPF_LD_W_ABS, 0, 0, high_at)
    match condition.op:
        case "SCMP_CMP_EQ":
            return [
                load_high,
                (BPF_JEQ_K, 0, skip + 2, high),
                load_low,
                (BPF_JEQ_K, 0, skip, low),
            ]
        case "SCMP_CMP_NE":
            return [
                load_high,
                (BPF_JEQ_K, 0, 2, high),
                load_low,
                (BPF_JEQ_K, skip, 0, low),
            ]
        case "SCMP_CMP_MASKED_EQ":
            masked = condition.value_two & 0xFFFFFFFFFFFFFFFF
            code: Code = []
            if low or masked & 0xFFFFFFFF:
                code = [
                    load_low,
                    (BPF_AND_K, 0, 0, low),
                    (BPF_JEQ_K, 0, skip, masked & 0xFFFFFFFF),
                ]
            if high or masked >> 32:
                code = [
                    load_high,
                    (BPF_AND_K, 0, 0, high),
                    (BPF_JEQ_K, 0, skip + len(code), masked >> 32),
                    *code,
                ]
            return code
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            test = BPF_JGT_K if condition.op == "SCMP_CMP_GT" else BPF_JGE_K
            return [
                load_high,
                (BPF_JGT_K, 3, 0, high),  # greater in the high word: holds
                (BPF_JEQ_K, 0, skip + 2, high),
                load_low,
                (test, 0, skip, low),
            ]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            test = BPF_JGE_K if condition.op == "SCMP_CMP_LT" else BPF_JGT_K
            return [
                load_high,
                (BPF_JGT_K, skip + 3, 0, high),
                (BPF_JEQ_K, 0, 2, high),  # less in the high word: holds
                load_low,
                (test, skip, 0, low),
            ]
    raise InvalidRequest(f"unknown seccomp comparison {condition.op!r}")


def _skip_unless_equal(token: int, length: int) -> Code:
    """Return code that jumps over ``length`` instructions unless the accumulator is ``token``."""
    if length <= 255:
        return [(BPF_JEQ_K, 0, length, token)]
    return [(BPF_JEQ_K, 1, 0, token), (BPF_JA, 0, 0, length)]


def _return(return_value: int) -> tuple[int, int, int, int]:
    return (BPF_RET_K, 0, 0, return_value)
