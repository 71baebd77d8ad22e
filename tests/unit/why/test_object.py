"""The compiled programs are those of the source."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
OBJECT = PROJECT / "src/jaula/why/bpf/refusals.bpf.o"


@pytest.mark.needs("clang-19", "llvm-strip-19", "/usr/include/bpf/bpf_helpers.h")
def test_the_object_is_compiled_from_the_source(tmp_path: Path) -> None:
    compiled = tmp_path / "refusals.bpf.o"
    subprocess.run([PROJECT / "scripts/bpf", compiled, "refusals"], check=True, timeout=60)
    assert compiled.read_bytes() == OBJECT.read_bytes(), "run scripts/bpf and commit the object"
