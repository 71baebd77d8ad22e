"""With a profile the remedy is an item of it, beside the flag or in its place."""

from __future__ import annotations

import msgspec
import pytest

from jaula.features.why.confinement import Confinement, Usage
from jaula.features.why.diagnosis import diagnoses
from jaula.features.why.explain import explain
from jaula.features.why.layers import Explanation, Layer
from jaula.features.why.profile_items import with_profile
from jaula.features.why.refusal import Refusal
from jaula.features.why.session import Trace
from jaula.security.capability_sets import DEFAULT
from jaula.security.seccomp.seccomp_filter import default_profile, narrow

CALL = Refusal(syscall="getcwd", errno="EPERM", entered=False)
PROFILED = Confinement(
    bounding=frozenset(DEFAULT),
    seccomp=narrow(default_profile(DEFAULT), ("read",)),
    profile="web",
    profile_calls=frozenset({"read"}),
)


@pytest.mark.parametrize(
    ("flag", "change", "kept"),
    [
        ("--cap-add NET_RAW", 'add "NET_RAW" to capabilities of the profile web', True),
        ("--security-opt landlock=execute=/bin/ls", 'add "/bin/ls" to files.execute', False),
        ("--egress tcp:192.0.2.1:80", 'add "tcp:192.0.2.1:80" to network.egress', False),
        ("--device /dev/fuse", 'add "/dev/fuse" to devices', True),
        ("--pids-limit 40", "set limits.pids to 40", True),
        ("--memory 64m", "set limits.memory to 67108864", True),
        ("--tmpfs /run:exec", 'add "/run" = "exec" to files.tmpfs', True),
        ("--network bridge", 'remove mode = "none" from network', True),
        ("without --security-opt no-new-privileges", "process.no-new-privileges to false", True),
    ],
)  # fmt: skip
def test_flags_are_items_of_the_profile(flag: str, change: str, kept: bool) -> None:
    plain = Explanation(layer=Layer.KERNEL, rule="", proof="", flag=flag)
    found = with_profile(plain, CALL, PROFILED)
    assert change in found.in_profile
    assert found.flag == (flag if kept else "")
    assert with_profile(plain, CALL, Confinement()) == plain


@pytest.mark.parametrize("flag", ["", "--userns=host", "--security-opt landlock=off"])
def test_flags_without_an_item_stay(flag: str) -> None:
    plain = Explanation(layer=Layer.KERNEL, rule="", proof="", flag=flag)
    assert with_profile(plain, CALL, PROFILED) == plain


def test_a_call_that_the_list_lacks_names_the_profile() -> None:
    found = explain(CALL, PROFILED)
    assert "the profile web does not list the call" in found.rule
    assert found.in_profile == (
        'add "getcwd" to seccomp.syscalls.x86_64 of the profile web, which is the reason'
    )
    other = msgspec.structs.replace(CALL, abi="i386")
    assert "seccomp.syscalls.x86 " in explain(other, PROFILED).in_profile


def test_the_calls_that_a_list_lacks_are_one_diagnosis() -> None:
    calls = [msgspec.structs.replace(CALL, syscall=name, name="a") for name in ("uname", "getcwd")]
    trace = Trace(
        events=(*calls, msgspec.structs.replace(calls[0], abi="i386")),
        facts=(), mounts=(), pids=Usage(), memory=Usage(),
    )  # fmt: skip
    found, other = diagnoses(trace, PROFILED)
    assert [each.call for each in found.operations] == ["uname", "getcwd"]
    assert 'add "uname", "getcwd" to seccomp.syscalls.x86_64' in found.explanation.in_profile
    rule = found.explanation.profile_rule
    assert rule is not None
    assert rule.names == ("uname", "getcwd")
    assert 'add "uname" to seccomp.syscalls.x86 of' in other.explanation.in_profile
    assert len(diagnoses(trace, PROFILED, join=False)) == 3


def test_a_call_that_the_default_refuses_too_needs_both() -> None:
    found = explain(msgspec.structs.replace(CALL, syscall="sethostname"), PROFILED)
    assert 'add "SYS_ADMIN" to capabilities and add "sethostname"' in found.in_profile
    assert "the default refuses it too" in found.in_profile
    assert not found.flag, "the list would refuse the call with the capability too"


def test_a_list_without_a_profile_is_named_by_its_option() -> None:
    found = explain(CALL, msgspec.structs.replace(PROFILED, profile=""))
    assert "--security-opt seccomp-allow does not list the call" in found.rule
    assert not found.in_profile
