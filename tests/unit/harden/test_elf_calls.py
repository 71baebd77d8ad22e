"""System calls of machine code: every call that can be made is found, and hostile files end."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import elf_files
from jaula.features.harden.elf import Elf, InvalidElf, Object
from jaula.features.harden.elf_calls import Analysis, Calls
from jaula.features.kubernetes.pods import pause_rootfs
from jaula.kernel.seccomp import name_of

BUSYBOX = Path("/bin/busybox")
TOKENS = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

EXIT = "31ff b8e7000000 0f05"  # exit_group(0)
GETPID = "b827000000 0f05 c3"
SYSCALL = "4889f8 4889f7 4889d6 0f05 c3"  # syscall(2): the number is the first parameter


def calls(*files: bytes, opened: tuple[int, ...] = ()) -> Calls:
    objects = [Object(f"/{n}", Elf(data)) for n, data in enumerate(files)]
    return Analysis().find_calls(objects, opened)


def names(result: Calls, machine: str = "x86_64") -> set[str]:
    return {name_of(call.number, TOKENS[machine]) or "" for call in result.calls}


def code(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_program_of_a_sandbox_has_its_four_calls(machine: str) -> None:
    result = calls(pause_rootfs.program(machine))
    assert names(result, machine) == {"rt_sigprocmask", "rt_sigtimedwait", "wait4", "exit_group"}
    assert not result.unknown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6a27 58 0f05", {"getpid"}),  # push; pop
        ("31c0 0f05", {"read"}),  # xor
        ("ba27000000 89d0 0f05", {"getpid"}),  # through another register
        ("85ff b827000000 7405 b86e000000 0f05", {"getpid", "getppid"}),  # a branch
        ("85ff b927000000 ba6e000000 89c8 0f44c2 0f05", {"getpid", "getppid"}),  # cmov
        ("4883ec10 c744240427000000 48c744240827000000 488b442408 4883c410 0f05", {"getpid"}),
        ("b827000000 e90a000000" + "90" * 10 + "0f05", {"getpid"}),  # a jump
    ],
)
def test_constants_are_traced(text: str, expected: set[str]) -> None:
    assert names(calls(elf_files.executable(code(text + EXIT)))) == expected | {"exit_group"}


def test_a_number_that_is_not_constant_is_named() -> None:
    result = calls(elf_files.executable(code("488b07 0f05" + EXIT)))  # mov rax, [rdi]
    assert names(result) == {"exit_group"}
    assert result.unknown == ("/0: 0x10000",)


def library(**arguments: object) -> bytes:
    """Return a library: getpid at 0, getppid at 16, syscall(2) at 32."""
    text = code(GETPID).ljust(16, b"\x90") + code("b86e000000 0f05 c3").ljust(16, b"\x90")
    text += code(SYSCALL)
    exports = {"getpid": 0, "getppid": 16, "syscall": 32}
    return elf_files.shared(text, exports, **arguments)  # type: ignore[arg-type]


def program(text: str, *imports: str, **arguments: object) -> bytes:
    """Return a program whose slots of imports are at 0x90000, 0x90008 and so on."""
    slots = {name: 0x90000 + 8 * n for n, name in enumerate(imports)}
    return elf_files.shared(code(text), imports=slots, entry=0, **arguments)  # type: ignore[arg-type]


def call_slot(at: int, slot: int) -> str:
    """Return ``call [rip + slot]`` for an offset in the code."""
    return "ff15" + struct.pack("<i", 0x90000 + 8 * slot - (elf_files.BASE + at + 6)).hex()


def test_only_used_functions_of_a_library_count() -> None:
    result = calls(program(call_slot(0, 0) + EXIT, "getppid"), library())
    assert names(result) == {"getppid", "exit_group"}
    made = next(call for call in result.calls if call.path == "/1")
    assert (made.symbol, made.root) == ("getppid", "getppid")


def test_a_constant_is_found_at_the_call_of_a_wrapper() -> None:
    text = "bf27000000" + call_slot(5, 0) + EXIT  # mov edi, 39; call syscall
    assert names(calls(program(text, "syscall"), library())) == {"getpid", "exit_group"}


def test_a_constant_is_found_behind_two_wrappers() -> None:
    # Entry: push 39; call wrapper; exit. The wrapper moves the stack's parameter on to syscall.
    wrapper_at = 32
    entry = "6a27" + "e8" + struct.pack("<i", wrapper_at - 7).hex() + "58" + EXIT
    wrapper = "488b7c2408" + call_slot(wrapper_at + 5, 0) + "c3"
    text = code(entry).ljust(wrapper_at, b"\x90").hex() + wrapper
    assert names(calls(program(text, "syscall"), library())) == {"getpid", "exit_group"}


def test_functions_in_tables_count() -> None:
    result = calls(program(EXIT), library(pointers={0x90000: 16}))
    assert names(result) == {"getppid", "exit_group"}


def test_all_functions_of_an_opened_library_count() -> None:
    assert names(calls(program(EXIT), library(), opened=(1,))) == {
        "exit_group", "getpid", "getppid",
    }  # fmt: skip


def test_a_function_that_is_looked_up_by_its_name_counts() -> None:
    result = calls(program(EXIT, "dlsym", texts=["getppid"]), library())
    assert names(result) == {"getppid", "exit_group"}


def test_aarch64_finds_wrappers() -> None:
    # mov x0, #172; bl +8; mov x8, #93... the wrapper: mov x8, x0; svc; ret
    text = struct.pack("<IIIIIII", 0xD2801580, 0x94000004, 0xD2800BA8, 0xD4000001, 0xD503201F,
                       0xAA0003E8, 0xD4000001)  # fmt: skip
    result = calls(elf_files.executable(text, "aarch64"))
    assert names(result, "aarch64") == {"getpid", "exit"}


def test_aarch64_reads_instructions_with_the_name_of_a_branch() -> None:
    """``tbl v2.8b, {v8.16b}, v1.8b`` begins as the branch ``tbz`` does."""
    text = struct.pack("<III", 0x0E010102, 0xD2800BA8, 0xD4000001)  # tbl; mov x8, #93; svc
    assert names(calls(elf_files.executable(text, "aarch64")), "aarch64") == {"exit"}


def test_busybox_has_what_its_applets_need() -> None:
    result = calls(BUSYBOX.read_bytes())
    found = names(result)
    assert result.complete
    assert {"read", "write", "openat", "execve", "accept", "poll", "wait4", "mount"} <= found
    assert not {"bpf", "ptrace", "io_uring_setup", "kexec_load", "userfaultfd"} & found


# --- hostile files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "not an ELF"),
        (b"\x7fELF", "64-bit"),
        (b"\x7fELF\x01\x01" + bytes(100), "64-bit"),
        (b"\x7fELF\x02\x01" + bytes(100), "machine 0"),
        (
            pause_rootfs.program("x86_64")[:16] + b"\1" + pause_rootfs.program("x86_64")[17:],
            "type 1",
        ),
        (
            pause_rootfs.program("x86_64")[:56] + b"\xff\xff" + pause_rootfs.program("x86_64")[58:],
            "program head",
        ),
        (pause_rootfs.program("x86_64")[:100], "program headers"),
    ],
)
def test_what_is_not_an_elf_file_is_refused(data: bytes, error: str) -> None:
    with pytest.raises(InvalidElf, match=error):
        Elf(data)


def test_huge_counts_do_not_count() -> None:
    data = bytearray(library())
    data[60:62] = b"\xff\xff"  # sections
    data[40:48] = b"\xff" * 8
    at = data.index(struct.pack("<QQ", 10, 0)[:8])  # DT_STRSZ
    data[at + 8 : at + 16] = b"\xff" * 8
    assert names(calls(program(call_slot(0, 0) + EXIT, "getppid"), bytes(data))) == {
        "getppid", "exit_group",
    }  # fmt: skip


def test_code_that_calls_in_a_circle_ends() -> None:
    text = "e8fbffffff ebf9 0f05"  # call itself; jump to itself
    assert calls(elf_files.executable(code(text))).complete


def test_work_is_limited() -> None:
    # Each system call has its number behind all the others.
    data = elf_files.executable(b"\x0f\x05" * 100_000)
    begin = time.monotonic()
    result = Analysis(400_000).find_calls([Object("/0", Elf(data))])
    assert not result.complete
    assert time.monotonic() - begin < 12


def test_long_texts_take_linear_time() -> None:
    data = program(EXIT, "dlsym", texts=["a" * 20_000_000, "getppid"])
    begin = time.monotonic()
    assert names(calls(data, library())) == {"getppid", "exit_group"}
    assert time.monotonic() - begin < 20


SAMPLES = (
    pause_rootfs.program("x86_64"), pause_rootfs.program("aarch64"), library(),
    program("bf27000000" + call_slot(5, 0) + EXIT, "syscall", needed=["c.so"], run_path="$ORIGIN"),
)  # fmt: skip


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=8),
    st.integers(0, 1 << 16),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_files_are_refused_or_read(
    data: bytes, changes: list[tuple[int, bytes]], length: int
) -> None:
    damaged = bytearray(data)
    for at, change in changes:
        at %= len(damaged)
        damaged[at : at + len(change)] = change
    try:
        elf = Elf(bytes(damaged[: length or len(damaged)]))
    except InvalidElf:
        return
    Analysis(300_000).find_calls([Object("/0", elf), Object("/1", Elf(library()))], (0,))
