"""A private file system in a file on a loop device, removed with the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 512 << 20  # bytes; the file is sparse


@contextmanager
def mounted(directory: Path, *maker: str, options: str = "") -> Iterator[Path]:
    """Yield the mount point of a new file system, created by ``maker`` below ``directory``.

    If the kernel cannot mount it, the test is skipped with that reason.
    """
    image, top = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([*maker, str(image)], check=True, capture_output=True)
    top.mkdir()
    words = ["mount", "-o", f"loop,{options}" if options else "loop", str(image), str(top)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this kernel does not mount what {maker[0]} makes with {words[2]}")
    try:
        yield top
    finally:
        subprocess.run(["umount", str(top)], check=True)
        image.unlink()
