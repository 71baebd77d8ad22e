"""Filters are compared by their results, not by their instructions."""

from __future__ import annotations

import errno
import platform

import pytest
from msgspec import structs

from jaula.features.verify.seccomp_compare import decode, more_permissive, run
from jaula.kernel.seccomp import SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
from jaula.security.capability_sets import resolve
from jaula.security.seccomp.compiler import ArgCondition, SyscallRule, assemble
from jaula.security.seccomp.seccomp_filter import build, default_profile
from jaula.spec.runtime_spec import Syscall

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")

REFUSE = SECCOMP_RET_ERRNO | errno.EPERM
ALLOW = SyscallRule(SECCOMP_RET_ALLOW)
PROFILE = default_profile(resolve())


def program(table: dict[int, list[SyscallRule]]) -> bytes:
    return assemble([("SCMP_ARCH_X86_64", table)], REFUSE)


def linear(numbers: set[int]) -> bytes:
    """Compile the profile to a chain of comparisons, as another compiler does."""
    import struct

    code = [(0x20, 0, 0, 4), (0x15, 1, 0, 0xC000003E), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
    for number in sorted(numbers):
        code += [(0x15, 0, 1, number), (0x06, 0, 0, SECCOMP_RET_ALLOW)]
    code.append((0x06, 0, 0, REFUSE))
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def test_other_instructions_with_the_same_results_are_as_strict() -> None:
    numbers = {0, 1, 3, 60, 231}
    ours = program({number: [ALLOW] for number in numbers})
    assert ours != linear(numbers)
    assert more_permissive(ours, [linear(numbers)]) == []


@pytest.mark.parametrize("extra", [2, 321, 165, 699])
def test_an_allowed_call_is_named(extra: int) -> None:
    ours = program({number: [ALLOW] for number in (0, 1)})
    assert more_permissive(ours, [linear({0, 1, extra})]) == [f"x86_64 {extra}"]
    assert more_permissive(ours, [linear({0})]) == [], "refusing more is no fault"


def test_an_unchecked_argument_is_detected() -> None:
    family = ArgCondition(0, "SCMP_CMP_EQ", 2)
    ours = program({41: [SyscallRule(SECCOMP_RET_ALLOW, (family,))]})
    wider = ArgCondition(0, "SCMP_CMP_LE", 38)
    theirs = program({41: [SyscallRule(SECCOMP_RET_ALLOW, (wider,))]})
    assert more_permissive(ours, [theirs]) == ["x86_64 41"]
    assert more_permissive(theirs, [ours]) == []


def test_two_rules_that_each_refuse_one_family_refuse_none() -> None:
    """The trap of address families: alternatives with ``!=`` let everything through."""
    ours = program({41: [SyscallRule(SECCOMP_RET_ALLOW, (ArgCondition(0, "SCMP_CMP_EQ", 2),))]})
    trap = program(
        {
            41: [
                SyscallRule(SECCOMP_RET_ALLOW, (ArgCondition(0, "SCMP_CMP_NE", f),))
                for f in (38, 40)
            ]
        }
    )
    assert more_permissive(ours, [trap]) == ["x86_64 41"]


def test_several_filters_are_as_strict_as_the_strictest() -> None:
    ours = program({0: [ALLOW]})
    everything = linear(set(range(700)))
    assert more_permissive(ours, [everything]) != []
    assert more_permissive(ours, [everything, ours]) == []
    assert len(more_permissive(ours, [])) > 700


def test_the_default_profile_is_as_strict_as_itself_and_stricter_than_with_a_call_more() -> None:
    wider = structs.replace(
        PROFILE, syscalls=(*PROFILE.syscalls, Syscall(("bpf",), "SCMP_ACT_ALLOW"))
    )
    assert more_permissive(build(PROFILE), [build(PROFILE)]) == []
    result = more_permissive(build(PROFILE), [build(wider)])
    assert result == ["x86_64 321", "i386 357"]


@pytest.mark.parametrize("code", [b"", b"\xff\0\0\0\0\0\0\0", b"\x20\0\0\0\0\0\0\0"])
def test_an_invalid_filter_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="filter"):
        run(decode(code), bytes(64))
