"""A profile with more calls stays a filter, and is a file of Docker's format."""

from __future__ import annotations

from jaula.features.why.profile import ALLOW, document, widened
from jaula.security.capability_sets import DEFAULT
from jaula.security.seccomp.docker_profile import parse
from jaula.security.seccomp.seccomp_filter import default_profile
from jaula.spec.runtime_spec import Syscall, SyscallArg

PROFILE = default_profile(DEFAULT)


def test_the_file_is_the_default_profile_and_the_rules() -> None:
    rules = (
        Syscall(("keyctl",), ALLOW),
        Syscall(("keyctl",), ALLOW),
        Syscall(("socket",), ALLOW, args=(SyscallArg(0, 38, "SCMP_CMP_EQ"),)),
    )
    profile = widened(PROFILE, rules)
    assert profile.syscalls == (*PROFILE.syscalls, rules[0], rules[2])
    assert parse(document(profile), DEFAULT, "6.1.0") == profile


def test_rules_that_refuse_an_allowed_call_are_left_out() -> None:
    profile = widened(PROFILE, (Syscall(("ioctl",), ALLOW),))
    assert {rule.action for rule in profile.syscalls if "ioctl" in rule.names} == {ALLOW}
    refused = {name for rule in profile.syscalls if rule.action != ALLOW for name in rule.names}
    assert refused == {"socket", "socketcall", "clone3"}
