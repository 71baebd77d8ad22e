"""The v2 device program, run by a small interpreter of the same instructions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.cgroups.device_rules import normalize
from jaula.cgroups.v2.devices_v2 import assemble
from jaula.errors import InvalidRequest, Unsupported
from jaula.spec.runtime_spec import DeviceCgroup

KINDS = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}
MASK = 0xFFFFFFFF


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    context = struct.pack("=III", sum(ACCESS[a] for a in access) << 16 | KINDS[kind], major, minor)
    registers = [0] * 11
    code = list(struct.iter_unpack("=BBhI", program))
    at = 0
    while True:
        operation, pair, offset, value = code[at]
        dst, src = pair & 15, pair >> 4
        at += 1
        match operation:
            case 0x61:
                assert src == 1
                registers[dst] = struct.unpack_from("=I", context, offset)[0]
            case 0xBC:
                registers[dst] = registers[src]
            case 0xB4:
                registers[dst] = value
            case 0x54:
                registers[dst] &= value
            case 0x74:
                registers[dst] = (registers[dst] & MASK) >> value
            case 0x56:
                at += offset if registers[dst] != value else 0
            case 0x16:
                at += offset if registers[dst] == value else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


def model(rules: list[DeviceCgroup], kind: str, major: int, minor: int, access: str) -> bool:
    """Return the decision of the last rule that matches a letter; without a match, deny."""
    for letter in access:
        verdict = False
        for rule in rules:
            if (
                (rule.type or "a") in ("a", kind)
                and rule.major in (None, major)
                and rule.minor in (None, minor)
                and letter in (rule.access or "rwm")
            ):
                verdict = rule.allow
        if not verdict:
            return False
    return True


letters = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda s: "".join(sorted(s)))
numbers = st.none() | st.integers(0, 3)
rule_lists = st.lists(
    st.builds(
        DeviceCgroup,
        allow=st.booleans(),
        type=st.sampled_from([None, "a", "b", "c"]),
        major=numbers,
        minor=numbers,
        access=st.none() | letters,
    ),
    max_size=12,
)


@given(rule_lists, st.sampled_from("bc"), st.integers(0, 3), st.integers(0, 3), letters)
def test_the_program_decides_by_the_rules(
    rules: list[DeviceCgroup], kind: str, major: int, minor: int, access: str
) -> None:
    program = assemble(normalize(rules))
    assert run(program, kind, major, minor, access) == model(rules, kind, major, minor, access)


def test_numbers_of_32_bits_are_compared_whole() -> None:
    rules = [DeviceCgroup(allow=True, type="c", major=2**32 - 1, minor=2**31, access="r")]
    program = assemble(normalize(rules))
    assert run(program, "c", 2**32 - 1, 2**31, "r")
    assert not run(program, "c", 2**32 - 1, 0, "r")


def test_no_rules_deny_everything() -> None:
    assert not run(assemble(()), "c", 1, 3, "r")


@pytest.mark.parametrize(
    "rule",
    [
        DeviceCgroup(allow=True, type="p"),
        DeviceCgroup(allow=True, major=2**32),
        DeviceCgroup(allow=True, minor=-2),
        DeviceCgroup(allow=True, access=""),
        DeviceCgroup(allow=True, access="rx"),
        DeviceCgroup(allow=True, access="r\n"),
    ],
)
def test_a_bad_rule_is_refused(rule: DeviceCgroup) -> None:
    with pytest.raises(InvalidRequest):
        normalize([rule])


def test_too_many_rules_are_refused() -> None:
    rules = normalize([DeviceCgroup(allow=True, type="c", major=n) for n in range(1001)])
    with pytest.raises(Unsupported):
        assemble(rules)
