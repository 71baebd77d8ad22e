"""A filter with a listener allows and refuses what the profile does, and passes chosen calls on."""

from __future__ import annotations

import pytest

from jaula.kernel import seccomp as kernel
from jaula.kernel.seccomp import NATIVE
from jaula.runtime.init.process_setup import NOTIFY_SYSCALL
from jaula.security.seccomp import seccomp_agent, seccomp_filter
from jaula.spec.runtime_spec import Seccomp, Syscall, SyscallArg
from unit.security.seccomp.bpf import run

PLAIN = seccomp_filter.default_profile(("CAP_SYS_ADMIN",))
NAMES = (
    "read",
    "kexec_load",
    "unshare",
    "keyctl",
    "io_uring_setup",
    "sendmsg",
    *seccomp_agent.CALLS,
)


def answer(profile: Seccomp, name: str, *args: int, abi: str = NATIVE) -> int:
    number = kernel.resolve(name, abi)
    assert number is not None
    return run(seccomp_filter.build(profile), abi, number, args)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("args", [(), (2, 1, 0), (10, 1, 0), (16, 3, 9), (40, 1, 0)])
def test_only_allowed_calls_are_passed_on(name: str, args: tuple[int, ...]) -> None:
    before = answer(PLAIN, name, *args)
    after = answer(seccomp_agent.with_listener(PLAIN, "/agent"), name, *args)
    if name in seccomp_agent.CALLS and before == kernel.SECCOMP_RET_ALLOW:
        assert after == kernel.SECCOMP_RET_USER_NOTIF
    else:
        assert after == before


def test_the_call_that_sends_the_listener_is_not_passed_on() -> None:
    assert NOTIFY_SYSCALL not in seccomp_agent.CALLS


def test_a_container_without_a_filter_gets_one_that_refuses_nothing() -> None:
    profile = seccomp_agent.with_listener(None, "/agent")
    assert profile.listener_path == "/agent"
    assert answer(profile, "execve") == kernel.SECCOMP_RET_USER_NOTIF
    assert answer(profile, "keyctl") == kernel.SECCOMP_RET_ALLOW


@pytest.mark.skipif(NATIVE != "SCMP_ARCH_X86_64", reason="the i386 and x32 ABIs are of x86")
@pytest.mark.parametrize("abi", ["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
def test_a_container_without_a_filter_keeps_its_other_abis(abi: str) -> None:
    profile = seccomp_agent.with_listener(None, "/agent")
    assert answer(profile, "getpid", abi=abi) == kernel.SECCOMP_RET_ALLOW
    assert answer(profile, "execve", abi=abi) == kernel.SECCOMP_RET_USER_NOTIF


def test_a_refusal_of_a_profile_stays_a_refusal() -> None:
    args = (SyscallArg(0, 10, "SCMP_CMP_EQ"),)
    profile = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        architectures=(NATIVE,),
        syscalls=(
            Syscall(("socket",), "SCMP_ACT_ERRNO", 97, args),
            Syscall(("mount",), "SCMP_ACT_KILL"),
        ),
    )
    both = seccomp_agent.with_listener(profile, "/agent")
    assert answer(both, "socket", 10) == kernel.SECCOMP_RET_ERRNO | 97
    assert answer(both, "mount") == kernel.SECCOMP_RET_KILL_THREAD
    assert answer(both, "socket", 2) == kernel.SECCOMP_RET_USER_NOTIF
