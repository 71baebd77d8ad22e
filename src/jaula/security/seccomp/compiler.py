"""Rules on system calls, turned into a classic BPF program for seccomp(2).

Follows Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/filter.h. Pure: a
tuple of architectures with rules by number goes in, bytes come out.

Why not libseccomp's generator: it lays out 360 calls and three architectures as chains of
comparisons (1.1 ms to load, 13 to 75 ms to build); a rule that allows ``socket`` with conditions
makes it allow i386's ``socketcall(SYS_SOCKET)`` without any; and where a call is allowed in general
it drops a rule that refuses it for some arguments. Here runs of numbers with one answer are ranges
in a balanced tree, and the most restrictive rule that matches a call decides.

Facts about what a filter sees: the system call number is 32 bits; x32 calls have bit 30 set under
the token of x86_64; number -1 is how a tracer says 'skip', is never executed, and is let through
so that the tracer's result is kept. Arguments are 64 bits, on 32-bit ABIs zero-extended.
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
"""Instructions as (code, jt, jf, k); every block ends in a return, so blocks can be joined."""


class ArgCondition(msgspec.Struct, frozen=True):
    """One comparison of an argument; ``op`` as OCI names it (``SCMP_CMP_*``).

    For ``SCMP_CMP_MASKED_EQ`` ``value`` is the mask and ``value_two`` what must be left.
    """

    index: int
    op: str
    value: int
    value_two: int = 0


class SyscallRule(msgspec.Struct, frozen=True):
    """An answer (SECCOMP_RET_*, data in the low 16 bits) where every condition holds."""

    answer: int
    conditions: tuple[ArgCondition, ...] = ()


def severity(answer: int) -> int:
    """Rank of an answer; 0 is the most restrictive."""
    return _SEVERITY.index(answer & 0xFFFF0000)


def assemble(
    tables: Sequence[tuple[str, Mapping[int, Sequence[SyscallRule]]]], default: int
) -> bytes:
    """The program for ``(architecture name, rules by number)`` pairs, the likeliest first.

    ``default`` answers for calls without a rule that matches. Where it is an errno, a call with a
    number above all that the table names answers ENOSYS, so that a C library newer than the table
    falls back to an older call. An architecture that is absent is answered with KILL_PROCESS; x32
    that is absent with ENOSYS, as by a kernel that is built without it.
    """
    by_token: dict[int, list[tuple[str, Mapping[int, Sequence[SyscallRule]]]]] = {}
    for name, table in tables:
        token = ARCHITECTURES["SCMP_ARCH_X86_64" if name == "SCMP_ARCH_X32" else name]
        by_token.setdefault(token, []).append((name, table))
    code: Code = [(BPF_LD_W_ABS, 0, 0, OFFSET_ARCH)]
    for token, members in by_token.items():
        block = [(BPF_LD_W_ABS, 0, 0, OFFSET_NR), *_tree(_segments(members, default))]
        code += _unless_equal(token, len(block)) + block
    code.append(_return(SECCOMP_RET_KILL_PROCESS))
    if len(code) > BPF_MAXINSNS:
        raise InvalidRequest(
            f"the seccomp profile makes {len(code)} instructions, the kernel takes {BPF_MAXINSNS}",
            hint="name fewer architectures or fewer rules on arguments",
        )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _segments(
    members: Iterable[tuple[str, Mapping[int, Sequence[SyscallRule]]]], default: int
) -> list[tuple[int, Code]]:
    """(first number, code) pairs that cover 32 bits; neighbours with equal code are joined."""
    found: list[tuple[int, Code]] = []

    def add(first: int, block: Code) -> None:
        if found and found[-1][0] == first:
            found.pop()
        if not found or found[-1][1] != block:
            found.append((first, block))

    add(0, [_return(default)])
    x32_seen = token_is_x86_64 = False
    for name, table in sorted(members, key=lambda member: member[0] == "SCMP_ARCH_X32"):
        x32_seen |= name == "SCMP_ARCH_X32"
        token_is_x86_64 |= name in ("SCMP_ARCH_X32", "SCMP_ARCH_X86_64")
        if name == "SCMP_ARCH_X32":
            add(X32_SYSCALL_BIT, [_return(default)])
        for number in sorted(table):
            add(number, _call(table[number], default))
            add(number + 1, [_return(default)])
        if table and default & 0xFFFF0000 == SECCOMP_RET_ERRNO:
            add(max(table) + 1, [_return(SECCOMP_RET_ERRNO | ENOSYS)])
    if token_is_x86_64 and not x32_seen:
        add(X32_SYSCALL_BIT, [_return(SECCOMP_RET_ERRNO | ENOSYS)])
    add(0xFFFFFFFF, [_return(SECCOMP_RET_ALLOW)])
    return found


def _tree(segments: Sequence[tuple[int, Code]]) -> Code:
    """Binary search over the number in the accumulator."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _tree(segments[:middle]), _tree(segments[middle:])
    pivot = segments[middle][0]
    if len(below) <= 255:
        return [(BPF_JGE_K, len(below), 0, pivot), *below, *above]
    return [(BPF_JGE_K, 0, 1, pivot), (BPF_JA, 0, 0, len(below)), *below, *above]


def _call(rules: Sequence[SyscallRule], default: int) -> Code:
    """Conditional rules by severity, then the most restrictive unconditional one or the default."""
    general = [rule.answer for rule in rules if not rule.conditions]
    last = min(general, key=severity) if general else default
    code: Code = []
    conditional = {rule: None for rule in rules if rule.conditions}  # without repetitions, in order
    for rule in sorted(conditional, key=lambda rule: severity(rule.answer)):
        if general and severity(rule.answer) >= severity(last):
            continue  # a refusal in general is not softened by a condition
        block: Code = [_return(rule.answer)]
        for condition in reversed(rule.conditions):
            block = _test(condition, len(block)) + block
        code += block
    return [*code, _return(last)]


def _test(condition: ArgCondition, rest: int) -> Code:
    """Go on where the condition holds, else jump over the ``rest`` instructions that follow."""
    first = OFFSET_ARGS + 8 * condition.index
    low_at, high_at = (first, first + 4) if sys.byteorder == "little" else (first + 4, first)
    value = condition.value & 0xFFFFFFFFFFFFFFFF
    low, high = value & 0xFFFFFFFF, value >> 32
    load_low, load_high = (BPF_LD_W_ABS, 0, 0, low_at), (BPF_LD_W_ABS, 0, 0, high_at)
    match condition.op:
        case "SCMP_CMP_EQ":
            return [
                load_high,
                (BPF_JEQ_K, 0, rest + 2, high),
                load_low,
                (BPF_JEQ_K, 0, rest, low),
            ]
        case "SCMP_CMP_NE":
            return [
                load_high,
                (BPF_JEQ_K, 0, 2, high),
                load_low,
                (BPF_JEQ_K, rest, 0, low),
            ]
        case "SCMP_CMP_MASKED_EQ":
            wanted = condition.value_two & 0xFFFFFFFFFFFFFFFF
            code: Code = []
            if low or wanted & 0xFFFFFFFF:
                code = [
                    load_low,
                    (BPF_AND_K, 0, 0, low),
                    (BPF_JEQ_K, 0, rest, wanted & 0xFFFFFFFF),
                ]
            if high or wanted >> 32:
                code = [
                    load_high,
                    (BPF_AND_K, 0, 0, high),
                    (BPF_JEQ_K, 0, rest + len(code), wanted >> 32),
                    *code,
                ]
            return code
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            test = BPF_JGT_K if condition.op == "SCMP_CMP_GT" else BPF_JGE_K
            return [
                load_high,
                (BPF_JGT_K, 3, 0, high),  # greater in the high word: holds
                (BPF_JEQ_K, 0, rest + 2, high),
                load_low,
                (test, 0, rest, low),
            ]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            test = BPF_JGE_K if condition.op == "SCMP_CMP_LT" else BPF_JGT_K
            return [
                load_high,
                (BPF_JGT_K, rest + 3, 0, high),
                (BPF_JEQ_K, 0, 2, high),  # less in the high word: holds
                load_low,
                (test, rest, 0, low),
            ]
    raise InvalidRequest(f"unknown seccomp comparison {condition.op!r}")


def _unless_equal(token: int, length: int) -> Code:
    """Jump over ``length`` instructions unless the accumulator holds ``token``."""
    if length <= 255:
        return [(BPF_JEQ_K, 0, length, token)]
    return [(BPF_JEQ_K, 1, 0, token), (BPF_JA, 0, 0, length)]


def _return(answer: int) -> tuple[int, int, int, int]:
    return (BPF_RET_K, 0, 0, answer)
