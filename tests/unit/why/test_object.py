"""The compiled programs are those of the source."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["refusals", "counts"])
@pytest.mark.needs("clang-19", "llvm-strip-19", "/usr/include/bpf/bpf_helpers.h")
def test_the_object_is_compiled_from_the_source(tmp_path: Path, name: str) -> None:
    compiled = tmp_path / "compiled.bpf.o"
    subprocess.run([PROJECT / "scripts/bpf", compiled, name], check=True, timeout=60)
    committed = PROJECT / f"src/jaula/features/why/bpf/{name}.bpf.o"
    assert compiled.read_bytes() == committed.read_bytes(), "run scripts/bpf and commit the object"
