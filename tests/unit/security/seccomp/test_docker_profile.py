"""Docker's seccomp profile files: conditions, and hostile or misspelt input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.kernel.seccomp import NATIVE
from jaula.security.seccomp.seccomp_filter import from_docker


def parse(
    *rules: dict[str, Any], caps: tuple[str, ...] = (), kernel: str = "6.1.0-1", **top: Any
) -> Any:
    document = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **top}
    return from_docker(json.dumps(document).encode(), caps, kernel)


def rule(**more: Any) -> dict[str, Any]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **more}


@pytest.mark.parametrize(
    ("more", "caps", "kernel", "counts"),
    [
        ({}, (), "6.1", True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, (), "6.1", False),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, ("CAP_SYS_ADMIN",), "6.1", True),
        ({"includes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}}, ("CAP_BPF",), "6.1", False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, ("CAP_SYS_ADMIN",), "6.1", False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, (), "6.1", True),
        ({"includes": {"minKernel": "4.8"}}, (), "4.7.9", False),
        ({"includes": {"minKernel": "4.8"}}, (), "4.10.0-rc1", True),
        ({"excludes": {"minKernel": "4.8"}}, (), "5.0", False),
        ({"includes": {"arches": ["s390x"]}}, (), "6.1", False),
        ({"excludes": {"arches": ["s390x"]}}, (), "6.1", True),
        ({"includes": {}, "excludes": {}, "args": None, "comment": "x"}, (), "6.1", True),
    ],
)
def test_a_rule_applies_if_its_conditions_hold(
    more: dict[str, Any], caps: tuple[str, ...], kernel: str, counts: bool
) -> None:
    assert bool(parse(rule(**more), caps=caps, kernel=kernel).syscalls) is counts


def test_the_architecture_map_gives_the_native_one_with_its_second_abis() -> None:
    entry = {"architecture": NATIVE, "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    other = {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]}
    assert parse(archMap=[other, entry]).architectures == (NATIVE, "SCMP_ARCH_X86", "SCMP_ARCH_X32")


def test_an_errno_is_a_number_or_a_name() -> None:
    (result,) = parse({"name": "bdflush", "action": "SCMP_ACT_ERRNO", "errno": "ENOSYS"}).syscalls
    assert result.errno_ret == 38
    assert parse(defaultErrnoRet=5).default_errno_ret == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"defaultAction": 5}',
        '{"defaultAction": "ALLOW"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": -1}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrno": "ENOTHING"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrno": "errorcode"}',
        "\xff",
        "[" * 100_000,
    ],
)
def test_a_malformed_profile_is_one_clear_error(text: str) -> None:
    with pytest.raises(InvalidRequest):
        from_docker(text.encode("latin-1"), (), "6.1")


@pytest.mark.parametrize(
    "more",
    [
        {"action": "SCMP_ACT_MAYBE"},
        {"name": "write"},
        {"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]},
        {"args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]},
        {"args": [{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}]},
        {"args": [{"index": 0, "value": 0, "op": "EQ"}]},
        {"includes": {"caps": ["CAP_NOTHING"]}},
        {"includes": {"cap": ["CAP_SYS_ADMIN"]}},
        {"includes": {"minKernel": "new"}},
        {"errnoRet": 70000},
        {"errno": "EPERM", "errnoRet": 38},
    ],
)
def test_a_malformed_rule_is_one_clear_error(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        parse(rule(**more))


def test_both_kinds_of_architecture_list_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse(architectures=[NATIVE], archMap=[{"architecture": NATIVE}])


def test_a_profile_has_a_size_limit() -> None:
    with pytest.raises(InvalidRequest, match="larger"):
        from_docker(b" " * (1 << 20) + b"{}", (), "6.1")
