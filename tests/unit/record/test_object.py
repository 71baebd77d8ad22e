"""The compiled programs are those of the source."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jaula.errors import Unsupported
from jaula.record import libbpf

PROJECT = Path(__file__).parents[3]
OBJECT = PROJECT / "src/jaula/record/bpf/record.bpf.o"


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
