"""The layout of BPF programs: every comparison, precedence, ranges, foreign architectures."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from jaula.kernel.seccomp import NATIVE
from jaula.security.seccomp.compiler import ArgCondition, SyscallRule, assemble
from unit.security.seccomp.bpf import run

ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000
ENOSYS = 0x00050026
NUMBERS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**64 - 1, 0x5412])
MEANING = {
    "SCMP_CMP_EQ": lambda a, v, w: a == v,
    "SCMP_CMP_NE": lambda a, v, w: a != v,
    "SCMP_CMP_LT": lambda a, v, w: a < v,
    "SCMP_CMP_LE": lambda a, v, w: a <= v,
    "SCMP_CMP_GT": lambda a, v, w: a > v,
    "SCMP_CMP_GE": lambda a, v, w: a >= v,
    "SCMP_CMP_MASKED_EQ": lambda a, v, w: a & v == w,
}
CONDITIONS = st.builds(
    ArgCondition, st.integers(0, 5), st.sampled_from(list(MEANING)), NUMBERS, NUMBERS
)


def holds(condition: ArgCondition, args: list[int]) -> bool:
    return MEANING[condition.op](args[condition.index], condition.value, condition.value_two)


@settings(max_examples=200, deadline=None)
@given(st.lists(CONDITIONS, min_size=1, max_size=4), st.lists(NUMBERS, min_size=6, max_size=6))
def test_conditions_of_a_rule_hold_together_on_64_bit_arguments(
    conditions: list[ArgCondition], args: list[int]
) -> None:
    code = assemble([(NATIVE, {7: [SyscallRule(ALLOW, tuple(conditions))]})], EPERM)
    expected = ALLOW if all(holds(c, args) for c in conditions) else EPERM
    assert run(code, NATIVE, 7, args) == expected


@settings(max_examples=100, deadline=None)
@given(NUMBERS, NUMBERS, st.sampled_from(list(MEANING)))
def test_comparisons_agree_near_their_border(value: int, mask: int, op: str) -> None:
    for argument in {value, (value + 1) % 2**64, (value - 1) % 2**64, value ^ 2**32, mask}:
        condition = ArgCondition(0, op, value, mask)
        code = assemble([(NATIVE, {7: [SyscallRule(ALLOW, (condition,))]})], EPERM)
        assert run(code, NATIVE, 7, [argument]) == (
            ALLOW if holds(condition, [argument]) else EPERM
        )


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.integers(0, 500), st.sampled_from([ALLOW, KILL, 0x00050005]), max_size=400)
)
def test_every_number_gets_its_return_value(answers: dict[int, int]) -> None:
    code = assemble([(NATIVE, {n: [SyscallRule(a)] for n, a in answers.items()})], EPERM)
    above = ENOSYS if answers else EPERM
    for number in range(520):
        default = EPERM if answers and number <= max(answers) else above
        assert run(code, NATIVE, number) == answers.get(number, default)


def test_the_most_restrictive_rule_that_matches_decides() -> None:
    one = (ArgCondition(0, "SCMP_CMP_EQ", 1),)
    small = (ArgCondition(0, "SCMP_CMP_LT", 5),)
    rules = [SyscallRule(ALLOW), SyscallRule(EPERM, small), SyscallRule(KILL, one)]
    code = assemble([(NATIVE, {7: rules})], ENOSYS)
    assert [run(code, NATIVE, 7, [n]) for n in (1, 2, 9)] == [KILL, EPERM, ALLOW]


def test_a_condition_does_not_weaken_an_unconditional_refusal() -> None:
    rules = [SyscallRule(EPERM), SyscallRule(ALLOW, (ArgCondition(0, "SCMP_CMP_EQ", 1),))]
    code = assemble([(NATIVE, {7: rules})], ENOSYS)
    assert run(code, NATIVE, 7, [1]) == EPERM


def test_an_architecture_that_is_not_listed_is_killed() -> None:
    code = assemble([("SCMP_ARCH_X86_64", {1: [SyscallRule(ALLOW)]})], EPERM)
    assert run(code, "SCMP_ARCH_X86", 1) == KILL
    assert run(code, "SCMP_ARCH_AARCH64", 1) == KILL


def test_x32_returns_enosys_unless_listed() -> None:
    number = 0x40000001
    code = assemble([("SCMP_ARCH_X86_64", {1: [SyscallRule(ALLOW)]})], EPERM)
    assert run(code, "SCMP_ARCH_X32", number) == ENOSYS
    both = [
        ("SCMP_ARCH_X86_64", {1: [SyscallRule(ALLOW)]}),
        ("SCMP_ARCH_X32", {number: [SyscallRule(ALLOW)]}),
    ]
    code = assemble(both, EPERM)
    assert run(code, "SCMP_ARCH_X32", number) == ALLOW
    assert run(code, "SCMP_ARCH_X32", 0x40000000) == EPERM
    assert run(code, "SCMP_ARCH_X86_64", 1) == ALLOW


def test_a_call_that_a_tracer_skipped_is_allowed() -> None:
    assert run(assemble([(NATIVE, {})], EPERM), NATIVE, -1) == ALLOW


def test_a_deny_list_has_no_enosys_range() -> None:
    code = assemble([(NATIVE, {7: [SyscallRule(EPERM)]})], ALLOW)
    assert [run(code, NATIVE, n) for n in (6, 7, 8, 1000)] == [ALLOW, EPERM, ALLOW, ALLOW]
