"""An engine whose file system has no inodes left: it starts, and containers can be removed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import loop_mount
from harness.engine import PrivateEngine

INODES = 1024


@pytest.fixture
def engine(new_engine: Callable[..., PrivateEngine], tmp_path: Path) -> Iterator[PrivateEngine]:
    """Return an engine with an image, on ext4 with few inodes."""
    private = new_engine("--storage-driver", "overlay", start=False)
    library = private.root / "lib"
    library.mkdir()
    maker = ("mkfs.ext4", "-q", "-N", str(INODES))
    with loop_mount.mounted(tmp_path, *maker) as disk:
        subprocess.run(["mount", "--bind", str(disk), str(library)], check=True)
        try:
            private.start()
            load_image(private, "busybox")
            yield private
            private.discard()
        finally:
            if private.process is not None:
                private.kill()
            subprocess.run(["umount", str(library)], check=True)


def take_inodes(directory: Path) -> None:
    directory.mkdir()
    for number in range(2 * INODES):
        try:
            (directory / str(number)).touch()
        except OSError:
            break
    assert os.statvfs(directory).f_ffree == 0


@pytest.mark.parametrize("killed", [False, True])
def test_an_engine_starts_without_free_inodes(engine: PrivateEngine, killed: bool) -> None:
    assert engine.cli("jaula", "run", "--name", "old", "busybox", "true").returncode == 0
    filler = engine.root / "lib" / "filler"
    take_inodes(filler)
    if killed:
        engine.kill()
    else:
        assert engine.stop() == 0
    engine.start()
    (row,) = engine.request("GET", "/containers/json?all=1").json()
    assert row["Names"] == ["/old"]
    removed = engine.cli("jaula", "rm", "old")
    assert removed.returncode == 0, removed.stderr
    for path in filler.iterdir():
        path.unlink()
    done = engine.cli("jaula", "run", "--rm", "busybox", "echo", "again")
    assert (done.returncode, done.stdout) == (0, "again\n"), done.stderr
    assert json.loads(engine.request("GET", "/info").body)["Driver"] == "overlay"
