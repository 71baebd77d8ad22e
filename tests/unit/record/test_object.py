"""The compiled programs are those of the source."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import bpf_stack
from jaula.errors import Unsupported
from jaula.features.record import libbpf

PROJECT = Path(__file__).parents[3]
OBJECT = PROJECT / "src/jaula/features/record/bpf/record.bpf.o"


@pytest.mark.needs("clang-19", "llvm-strip-19", "/usr/include/bpf/bpf_helpers.h")
def test_the_object_is_compiled_from_the_source(tmp_path: Path) -> None:
    compiled = tmp_path / "record.bpf.o"
    subprocess.run([PROJECT / "scripts/bpf", compiled], check=True, timeout=60)
    assert compiled.read_bytes() == OBJECT.read_bytes(), "run scripts/bpf and commit the object"


def test_a_host_without_libbpf_gets_one_error_with_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libbpf, "LIBRARY", "libbpf-absent.so.9")
    monkeypatch.setattr(libbpf, "_library", None)
    with pytest.raises(Unsupported, match="libbpf1"):
        libbpf.library()


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"x" * 4096])
def test_an_object_that_is_not_one_is_an_error(data: bytes) -> None:
    with pytest.raises(OSError, match="cannot open the eBPF object"):
        libbpf.BpfObject(data)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("features/record/bpf/record.bpf.o", "sys_exit"),
        ("features/why/bpf/refusals.bpf.o", "sys_exit"),
        ("features/why/bpf/counts.bpf.o", "seccomp"),
    ],
)
def test_no_chain_of_calls_exceeds_the_stack_of_older_kernels(name: str, program: str) -> None:
    depths = bpf_stack.depths(PROJECT / "src/jaula" / name)
    assert {function: size for function, size in depths.items() if size > bpf_stack.LIMIT} == {}
    assert depths[program] > 128, "the calls of the program are counted"


def test_callbacks_of_loops_are_a_part_of_the_chain() -> None:
    functions = bpf_stack.read(OBJECT)
    callers = {
        function.name: {functions[each].name for each in function.called}
        for function in functions.values()
    }
    assert "each_message" in callers["note_socket_call"]
    assert "step" in callers["path_at"]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((), ""),
        (("libbpf: failed to load object 'x'",), "libbpf: failed to load object 'x'"),
        (
            (
                "libbpf: prog 'sys_exit': BPF program load failed: Permission denied",
                (
                    "libbpf: prog 'sys_exit': -- BEGIN PROG LOAD LOG --\n"
                    "Func#17 ('f') is safe for any args that match its prototype\n"
                    "combined stack size of 4 calls is 528. Too large\n"
                    "processed 7 insns (limit 1000000)\n-- END PROG LOAD LOG --"
                ),
                "libbpf: failed to load object 'x'",
            ),
            "libbpf: prog 'sys_exit': combined stack size of 4 calls is 528. Too large",
        ),
        (("-- BEGIN PROG LOAD LOG --\n",), "-- BEGIN PROG LOAD LOG --"),
        (("\n",), ""),
    ],
)
def test_an_error_has_the_reason_of_the_verifier(messages: tuple[str, ...], reason: str) -> None:
    assert libbpf.reason_of(messages) == reason
