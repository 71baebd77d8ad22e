"""Reading a file below a root."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.kernel import openat2


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
def test_a_file_is_read_up_to_its_limit_and_no_byte_further(
    root: int, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert openat2.read_file_in_root(root, "file", size) == content
    assert openat2.read_file_in_root(root, "file", size + 1) == content
    if size:
        with pytest.raises(OSError, match=f"larger than {size - 1} bytes") as caught:
            openat2.read_file_in_root(root, "file", size - 1)
        assert caught.value.errno == errno.EFBIG


def test_only_a_file_is_read(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(OSError, match="not a regular file"):
            openat2.read_file_in_root(root, name, 10)
