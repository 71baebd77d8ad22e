"""What arrives is written to the disk while the rest arrives."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.images.store import image_store
from jaula.images.store.image_store import ImageStore
from jaula.storage.layers.layer_store import LayerStore


class Disk:
    """Stands for ``sync_file_systems``; ``error`` ends a call."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.threads: list[threading.Thread] = []
        self.synced = threading.Semaphore(0)

    def sync(self, *directories: Path) -> None:
        self.threads.append(threading.current_thread())
        self.synced.release()
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(image_store, "sync_file_systems", disk.sync)
    monkeypatch.setattr(image_store, "_WRITEBACK_INTERVAL", 0.0)
    return disk


def opened(tmp_path: Path, *, durable: bool) -> ImageStore:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    return ImageStore(paths, LayerStore(paths), durable=durable)


def test_what_arrives_is_written_meanwhile(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, durable=True).early_writeback():
        for _ in range(3):
            assert disk.synced.acquire(timeout=10)
    disk.threads[0].join(10)
    assert not disk.threads[0].is_alive()
    assert threading.current_thread() not in disk.threads


def test_a_disk_that_fails_is_left_to_the_sync_of_the_image(tmp_path: Path, disk: Disk) -> None:
    disk.error = OSError(errno.EIO, "Input/output error")
    with opened(tmp_path, durable=True).early_writeback():
        assert disk.synced.acquire(timeout=10)
        disk.threads[0].join(10)
        assert not disk.threads[0].is_alive()


def test_relaxed_durability_writes_nothing_early(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, durable=False).early_writeback():
        assert [thread for thread in threading.enumerate() if thread.name == "writeback"] == []
    assert disk.threads == []
