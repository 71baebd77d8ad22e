"""The committed eBPF object is the one that its source gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.engine import PROJECT

OBJECT = PROJECT / "src/jaula/why/bpf/refusals.bpf.o"


@pytest.mark.skipif(shutil.which("clang-19") is None, reason="clang-19 is not installed")
def test_object_is_compiled_from_the_source(tmp_path: Path) -> None:
    compiled = tmp_path / "refusals.bpf.o"
    subprocess.run([PROJECT / "scripts/bpf", compiled, "refusals"], check=True, timeout=60)
    assert compiled.read_bytes() == OBJECT.read_bytes(), "run scripts/bpf and commit the object"
