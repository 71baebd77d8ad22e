"""SHA-256 of documents of any size."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from jaula.sha256 import LARGE, sha256


@pytest.mark.parametrize("size", [0, 1, LARGE, LARGE + 1, 3 * LARGE])
def test_it_is_that_of_hashlib(size: int) -> None:
    data = b"x" * size
    assert sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("size", "loaded"), [(LARGE, "False"), (LARGE + 1, "True")])
def test_openssl_is_loaded_for_large_documents_only(size: int, loaded: str) -> None:
    text = (
        "import sys; from jaula.sha256 import sha256\n"
        f"sha256(b'x' * {size}); print('_hashlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == loaded
