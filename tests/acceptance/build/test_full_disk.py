"""A build that fills the disk: one clear error and no incomplete image."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness.engine import PrivateEngine

MEGABYTE = 1 << 20
SIZE = 230 * MEGABYTE


@pytest.fixture
def small(new_engine: Callable[..., PrivateEngine]) -> Iterator[PrivateEngine]:
    """Return an engine on a small file system."""
    private = new_engine(start=False)
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(private.root)]
    subprocess.run(mounted, check=True)
    try:
        private.start()
        load_image(private, "busybox")
        yield private
        private.discard()
    finally:
        if private.process is not None:
            private.kill()
        subprocess.run(["umount", str(private.root)], check=True)


def used(engine: PrivateEngine) -> int:
    facts = os.statvfs(engine.root)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


@pytest.mark.parametrize(
    ("megabytes", "text", "error"),
    [
        (180, "COPY big /\n", "the build context: No space left on device"),
        (90, "COPY big /\n", "cannot copy to '/': No space left on device"),
        (0, "RUN dd if=/dev/zero of=/big bs=1M count=300\n", "No space left on device"),
    ],
)
def test_a_build_that_exceeds_the_disk_is_one_clear_error(
    small: PrivateEngine, tmp_path: Path, megabytes: int, text: str, error: str
) -> None:
    before = used(small)
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\n{text}")
    (tmp_path / "big").write_bytes(os.urandom(MEGABYTE) * megabytes)
    done = small.cli("jaula", "build", str(tmp_path))
    assert done.returncode == 1 and error in done.stderr, done.stderr
    deadline = time.monotonic() + 20
    while used(small) - before > MEGABYTE or any((small.root / "lib/build/work").iterdir()):
        assert time.monotonic() < deadline, f"{used(small) - before} bytes are left"
        time.sleep(0.1)
    (tmp_path / "big").write_bytes(b"")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY big /\nRUN echo x > /y\n")
    assert small.cli("jaula", "build", str(tmp_path)).returncode == 0
