"""The default profile as a table of call x family x ABI (statement I23); cache; documents."""

from __future__ import annotations

import os
from errno import EAFNOSUPPORT
from pathlib import Path

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.kernel import seccomp as kernel
from jaula.kernel.seccomp import NATIVE
from jaula.security.capability_sets import DEFAULT, resolve
from jaula.security.seccomp import seccomp_filter
from jaula.security.seccomp.default_profile import FAMILIES, GROUPS
from jaula.spec.runtime_spec import Seccomp, Syscall, SyscallArg
from unit.security.seccomp.bpf import run

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
ABIS = [NATIVE, *([] if NATIVE != "SCMP_ARCH_X86_64" else ["SCMP_ARCH_X86"])]
x86 = pytest.mark.skipif(NATIVE != "SCMP_ARCH_X86_64", reason="the i386 and x32 ABIs are of x86")


@pytest.fixture(scope="module")
def code() -> bytes:
    return seccomp_filter.build(seccomp_filter.default_profile(DEFAULT))


def ask(code: bytes, abi: str, name: str, *args: int) -> int:
    number = kernel.resolve(name, abi)
    assert number is not None, f"{abi} has no {name}"
    return run(code, abi, number, args)


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    "name",
    [
        "mount",
        "umount2",
        "pivot_root",
        "setns",
        "unshare",
        "bpf",
        "keyctl",
        "add_key",
        "request_key",
        "userfaultfd",
        "perf_event_open",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "swapon",
        "swapoff",
        "reboot",
        "settimeofday",
        "clock_settime",
        "open_by_handle_at",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "quotactl",
        "acct",
        "syslog",
        "sethostname",
        "setdomainname",
        "kcmp",
        "pidfd_getfd",
        "move_pages",
        "mbind",
        "fanotify_init",
        "vhangup",
        "memfd_secret",
        "process_madvise",
    ],
)
def test_a_dangerous_call_is_refused_whatever_its_arguments(
    code: bytes, abi: str, name: str
) -> None:
    for args in ((), (1,) * 6, (2**64 - 1,) * 6):
        assert ask(code, abi, name, *args) == EPERM


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    "name",
    [
        "read",
        "write",
        "openat",
        "openat2",
        "close",
        "execve",
        "execveat",
        "exit_group",
        "mmap",
        "clock_gettime",
        "futex",
        "close_range",
        "prctl",
        "ptrace",
        "chroot",
        "setuid",
        "capset",
        "mknodat",
        "statx",
        "ppoll",
        "epoll_pwait2",
        "sendmsg",
        "bind",
        "landlock_restrict_self",
        "seccomp",
        "mseal",
        "rseq",
    ],
)
def test_an_ordinary_call_is_allowed(code: bytes, abi: str, name: str) -> None:
    assert ask(code, abi, name, *(2**64 - 1,) * 6) == ALLOW


@pytest.mark.parametrize("abi", ABIS)
def test_only_listed_socket_families_can_be_created(code: bytes, abi: str) -> None:
    allowed = {family for family, _, _ in FAMILIES}
    assert allowed == {1, 2, 10, 16, 17}
    for family in [*range(48), 0xFFFFFFFF, 2**32 + 2, 2**64 - 1]:
        expected = ALLOW if family in allowed else EPERM
        assert ask(code, abi, "socket", family, 1) == expected, family
        assert ask(code, abi, "socketpair", family, 1) == (ALLOW if family == 1 else EPERM)


@x86
def test_socketcall_creates_no_sockets_and_uses_existing_ones(code: bytes) -> None:
    for operation in range(1, 21):
        expected = EPERM if operation in (1, 8) else ALLOW
        assert ask(code, "SCMP_ARCH_X86", "socketcall", operation) == expected


@x86
def test_x32_calls_return_enosys(code: bytes) -> None:
    for name in ("read", "socket", "mount", "ioctl", "execve"):
        assert ask(code, "SCMP_ARCH_X32", name, 1) == ENOSYS


@pytest.mark.parametrize("abi", ABIS)
def test_clone_is_allowed_without_namespace_flags_only(code: bytes, abi: str) -> None:
    assert ask(code, abi, "clone", 0x003D0F00) == ALLOW
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert ask(code, abi, "clone", 1 << bit | 17) == EPERM, hex(1 << bit)
    assert ask(code, abi, "clone3", 1) == ENOSYS


@pytest.mark.parametrize("abi", ABIS)
def test_terminal_injection_is_refused_whatever_the_high_bits(code: bytes, abi: str) -> None:
    for request in (0x5412, 0x541C):
        for high in (0, 1 << 32, 0xFFFFFFFF << 32, 1 << 63):
            assert ask(code, abi, "ioctl", 0, request | high) == EPERM
    assert ask(code, abi, "ioctl", 0, 0x5413) == ALLOW


@pytest.mark.parametrize("abi", ABIS)
def test_personality_cannot_weaken_memory_protection(code: bytes, abi: str) -> None:
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert ask(code, abi, "personality", value) == ALLOW
    for value in (0x0040000, 0x0400000, 0x0040008, 2**64 - 1):
        assert ask(code, abi, "personality", value) == EPERM


def test_a_call_newer_than_the_table_returns_enosys(code: bytes) -> None:
    assert run(code, NATIVE, 900) == ENOSYS


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_ADMIN", "unshare"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_PTRACE", "process_madvise"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYSLOG", "syslog"),
    ],
)
def test_a_capability_allows_the_calls_that_need_it(
    code: bytes, capability: str, name: str
) -> None:
    more = seccomp_filter.build(seccomp_filter.default_profile(resolve([capability])))
    assert ask(code, NATIVE, name) != ALLOW
    assert ask(more, NATIVE, name, 0x10000000) == ALLOW


OBSOLETE = (
    *("oldstat", "oldlstat", "oldfstat", "olduname", "oldolduname", "readdir", "nice"),
    *("sigaction", "sigpending", "sigsuspend", "sgetmask", "ssetmask"),
)


@pytest.mark.skipif(NATIVE != "SCMP_ARCH_X86_64", reason="i386 is an ABI of x86")
@pytest.mark.parametrize("name", OBSOLETE)
def test_calls_of_i386_that_no_library_makes_are_refused(code: bytes, name: str) -> None:
    assert ask(code, "SCMP_ARCH_X86", name) == EPERM


@pytest.mark.parametrize("abi", ABIS)
def test_the_audit_system_is_out_of_reach_as_on_a_kernel_without_it(code: bytes, abi: str) -> None:
    refused = kernel.SECCOMP_RET_ERRNO | EAFNOSUPPORT
    for protocol in (9, 1 << 32 | 9):
        assert ask(code, abi, "socket", 16, 3, protocol) == refused
    for protocol in (0, 4, 15):
        assert ask(code, abi, "socket", 16, 3, protocol) == ALLOW
    assert ask(code, abi, "socket", 2, 3, 9) == ALLOW
    for capability in ("CAP_AUDIT_CONTROL", "CAP_AUDIT_READ"):
        more = seccomp_filter.build(seccomp_filter.default_profile(resolve([capability])))
        assert ask(more, abi, "socket", 16, 3, 9) == ALLOW


def test_io_uring_and_keyrings_stay_refused_with_every_capability() -> None:
    code = seccomp_filter.build(seccomp_filter.default_profile(resolve(["ALL"])))
    for name in ("io_uring_setup", "keyctl", "add_key", "userfaultfd", "kexec_load"):
        assert ask(code, NATIVE, name) == EPERM


def test_every_name_of_the_table_exists_on_some_architecture() -> None:
    abis = (
        "X86_64", "X86", "AARCH64", "ARM", "RISCV64", "PPC64LE", "S390X"
    )  # fmt: skip
    unknown = {
        name
        for group in GROUPS
        for name in group.calls
        if not any(kernel.resolve(name, f"SCMP_ARCH_{abi}") is not None for abi in abis)
    }
    assert unknown <= {"map_shadow_stack", "riscv_hwprobe", "memfd_secret"}


def test_every_group_has_a_reason_and_no_call_is_named_twice_in_it() -> None:
    for group in GROUPS:
        assert group.reason
        assert len(set(group.calls)) == len(group.calls), group.name


def test_programs_fit_the_kernel(code: bytes) -> None:
    assert len(code) // 8 < kernel.BPF_MAXINSNS // 4


# -- cache -----------------------------------------------------------------------------------


def test_a_cached_program_is_the_same_and_private(tmp_path: Path) -> None:
    cache = str(tmp_path / "seccomp")
    profile = seccomp_filter.default_profile(DEFAULT)
    first = seccomp_filter.program(profile, cache)
    (entry,) = os.listdir(cache)
    assert os.stat(f"{cache}/{entry}").st_mode & 0o777 == 0o600
    assert os.stat(cache).st_mode & 0o777 == 0o700
    assert seccomp_filter.program(profile, cache) == first == seccomp_filter.program(profile, None)


@pytest.mark.parametrize("damage", ["truncate", "flip", "mode", "link", "empty", "huge"])
def test_a_cache_entry_that_cannot_be_trusted_is_not_used(tmp_path: Path, damage: str) -> None:
    profile = seccomp_filter.default_profile(DEFAULT)
    good = seccomp_filter.program(profile, str(tmp_path))
    (entry,) = tmp_path.iterdir()
    data = entry.read_bytes()
    evil = b"\x06\0\0\0\0\0\xff\x7f"
    match damage:
        case "truncate":
            entry.write_bytes(data[:-8])
        case "flip":
            entry.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "mode":
            entry.write_bytes(evil * 9)
            entry.chmod(0o622)
        case "link":
            entry.unlink()
            (tmp_path / "x").write_bytes(evil * 9)
            entry.symlink_to(tmp_path / "x")
        case "empty":
            entry.write_bytes(b"")
        case "huge":
            entry.write_bytes(b"x" * 100_000)
    assert seccomp_filter.program(profile, str(tmp_path)) == good


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    profile = seccomp_filter.default_profile(DEFAULT)
    assert seccomp_filter.program(profile, str(tmp_path / "file" / "x"))[0]


# -- documents -------------------------------------------------------------------------------


def test_two_comparisons_of_one_argument_are_alternatives_as_in_runc() -> None:
    args = (SyscallArg(0, 1, "SCMP_CMP_NE"), SyscallArg(0, 2, "SCMP_CMP_NE"))
    spec = Seccomp("SCMP_ACT_ERRNO", syscalls=(Syscall(("socket",), "SCMP_ACT_ALLOW", args=args),))
    assert ask(seccomp_filter.build(spec), NATIVE, "socket", 1) == ALLOW


def allow(*args: SyscallArg) -> Syscall:
    return Syscall(("read",), "SCMP_ACT_ALLOW", args=args)


@pytest.mark.parametrize(
    "change",
    [
        {"default_action": "SCMP_ACT_NOTHING"},
        {"architectures": ("SCMP_ARCH_VAX",)},
        {"flags": ("SECCOMP_FILTER_FLAG_MAGIC",)},
        {"default_errno_ret": 70000},
        {"syscalls": (Syscall(("read",), "ALLOW"),)},
        {"syscalls": (allow(SyscallArg(6, 0, "SCMP_CMP_EQ")),)},
        {"syscalls": (allow(SyscallArg(0, 0, "==")),)},
        {"syscalls": (allow(SyscallArg(0, -1, "SCMP_CMP_EQ")),)},
        {"syscalls": (Syscall(("re\0ad",), "SCMP_ACT_ALLOW"),)},
        {"syscalls": (Syscall(("",), "SCMP_ACT_ALLOW"),)},
    ],
)  # fmt: skip
def test_a_malformed_filter_is_refused(change: dict[str, object]) -> None:
    spec = msgspec.structs.replace(Seccomp("SCMP_ACT_ERRNO"), **change)
    with pytest.raises(InvalidRequest):
        seccomp_filter.program(spec, None)


def test_unknown_names_are_skipped() -> None:
    spec = Seccomp(
        "SCMP_ACT_ERRNO", syscalls=(Syscall(("no_such_call", "read"), "SCMP_ACT_ALLOW"),)
    )
    assert ask(seccomp_filter.build(spec), NATIVE, "read") == ALLOW


@pytest.mark.parametrize(
    ("number", "abi", "name"),
    [
        (0, "SCMP_ARCH_X86_64", "read"),
        (257, "SCMP_ARCH_X86_64", "openat"),
        (5, "SCMP_ARCH_X86", "open"),
        (0x40000000, "SCMP_ARCH_X32", "read"),
        (99999, "SCMP_ARCH_X86_64", None),
    ],
)
def test_a_number_has_the_name_of_its_architecture(number: int, abi: str, name: str | None) -> None:
    assert kernel.name_of(number, abi) == name


@pytest.mark.parametrize("abi", ABIS)
def test_a_narrowed_filter_allows_the_named_calls_only(abi: str) -> None:
    narrow = seccomp_filter.build(
        seccomp_filter.narrow(seccomp_filter.default_profile(DEFAULT), ("read", "socket"))
    )
    assert ask(narrow, abi, "read") == ALLOW
    assert ask(narrow, abi, "execve") == ALLOW
    assert ask(narrow, abi, "exit_group") == ALLOW
    assert ask(narrow, abi, "write") == EPERM
    assert ask(narrow, abi, "openat") == EPERM


@pytest.mark.parametrize("abi", ABIS)
def test_a_narrowed_filter_is_never_wider(code: bytes, abi: str) -> None:
    names = ("mount", "bpf", "io_uring_setup", "socket", "clone", "clone3", "ioctl", "keyctl")
    narrow = seccomp_filter.build(
        seccomp_filter.narrow(seccomp_filter.default_profile(DEFAULT), names)
    )
    for name in names:
        for args in ((), (1,), (16,), (40,), (0x10000000,), (0, 0x5412)):
            before, after = ask(code, abi, name, *args), ask(narrow, abi, name, *args)
            assert before == ALLOW or after == before
    refused = seccomp_filter.refused_names(seccomp_filter.default_profile(DEFAULT), names)
    assert refused == ("bpf", "clone3", "io_uring_setup", "keyctl", "mount")


@pytest.mark.parametrize("abi", ABIS)
def test_unavailable_calls_fail_with_enosys(code: bytes, abi: str) -> None:
    default = seccomp_filter.default_profile(DEFAULT)
    narrow = seccomp_filter.build(
        seccomp_filter.narrow(default, ("read",), ("statx", "read", "mount"))
    )
    assert [ask(narrow, abi, name) for name in ("statx", "read", "mount")] == [
        ENOSYS,
        ALLOW,
        ENOSYS,
    ]
    assert ask(narrow, abi, "write") == EPERM
    alone = seccomp_filter.build(seccomp_filter.narrow(default, (), ("statx",)))
    assert [ask(alone, abi, name) for name in ("statx", "read", "mount")] == [ENOSYS, ALLOW, EPERM]


@x86
def test_a_list_of_one_architecture_allows_nothing_on_others() -> None:
    default = seccomp_filter.default_profile(DEFAULT)
    one = seccomp_filter.build(seccomp_filter.narrow(default, ("x86_64:read", "x86_64:socket")))
    assert ask(one, "SCMP_ARCH_X86_64", "read") == ALLOW
    assert ask(one, "SCMP_ARCH_X86_64", "write") == EPERM
    for name in ("read", "write", "execve", "exit_group", "socket"):
        assert ask(one, "SCMP_ARCH_X86", name, 1) == EPERM
    assert ask(one, "SCMP_ARCH_X32", "read") == ENOSYS
    items = ("x86_64:read", "x86:write", "x86:socket", "getpid", "x32:read")
    two = seccomp_filter.build(seccomp_filter.narrow(default, items, ("x86:statx",)))
    for name, native, i386 in (
        ("read", ALLOW, EPERM),
        ("write", EPERM, ALLOW),
        ("getpid", ALLOW, ALLOW),
        ("statx", EPERM, ENOSYS),
        ("exit_group", ALLOW, ALLOW),
        ("mount", EPERM, EPERM),
    ):
        assert ask(two, "SCMP_ARCH_X86_64", name) == native, name
        assert ask(two, "SCMP_ARCH_X86", name) == i386, name
    assert ask(two, "SCMP_ARCH_X86", "socket", 38) == EPERM  # AF_ALG: conditions stay
    assert ask(two, "SCMP_ARCH_X86", "socket", 1) == ALLOW
    assert ask(two, "SCMP_ARCH_X32", "read") == ENOSYS
    assert seccomp_filter.refused_names(default, (*items, "aarch64:mount", "x86:mount")) == (
        "x32:read",
        "x86:mount",
    )


def test_a_list_without_the_architecture_of_the_host_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="no system call is for the architecture of this host"):
        seccomp_filter.narrow(seccomp_filter.default_profile(DEFAULT), ("riscv64:read",))


def test_a_filter_that_allows_by_default_cannot_be_narrowed() -> None:
    with pytest.raises(InvalidRequest, match="allows system calls by default"):
        seccomp_filter.narrow(Seccomp(default_action="SCMP_ACT_ALLOW"), ("read",))
