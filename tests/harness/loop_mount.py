"""A private file system in a file on a loop device, removed with the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 512 << 20  # bytes; the file is sparse


def change(directory: Path, mark: bytes) -> int:
    """Change ``mark`` on the disk of :func:`mounted`, beneath the file system.

    Return the number of places. Nothing of the file system is cached afterwards.
    """
    subprocess.run(["sync"], check=True)
    image = directory / "disk.img"
    data = image.read_bytes()
    places = data.count(mark)
    with image.open("r+b") as file:
        start = data.find(mark)
        while start >= 0:
            file.seek(start)
            file.write(bytes([mark[0] ^ 1]))
            start = data.find(mark, start + len(mark))
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    return places


@contextmanager
def mounted(directory: Path, *maker: str, options: str = "", size: int = SIZE) -> Iterator[Path]:
    """Yield the mount point of a new file system, created by ``maker`` below ``directory``.

    ``size`` is in bytes.

    If the kernel cannot mount it, the test is skipped with that reason.
    """
    image, top = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(size)
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
