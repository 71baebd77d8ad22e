"""The usage of images and writable layers: what is counted, and how often it is read."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.config import Paths
from jaula.engine.system import disk_usage
from jaula.engine.system.disk_usage import DiskUsage
from jaula.errors import NotFound
from jaula.storage.drivers.storage_driver import SnapshotUsage


class Host:
    """An engine with three containers, of which one is being removed, and a clock."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.cost, self.reads = 100.0, 0.0, 0
        monkeypatch.setattr(disk_usage, "monotonic", lambda: self.now)
        services: Any = SimpleNamespace(
            config=SimpleNamespace(paths=Paths(root)),
            container_store=[SimpleNamespace(id=id) for id in ("a", "b", "gone")],
            snapshots=SimpleNamespace(usage=self.usage),
            images=SimpleNamespace(
                candidates=lambda: (["l1", "l2"], ["b1"]),
                blobs=SimpleNamespace(size=lambda blob: 7),
            ),
            layers=SimpleNamespace(
                stored_sizes=lambda layers: lambda names: 100 * len(tuple(names)),
                inodes=lambda layer: 10,
            ),
        )
        absent: Any = None
        self.disk = DiskUsage(services, absent, absent, absent, absent)
        self.root = root

    def usage(self, id: str) -> SnapshotUsage:
        if id == "gone":
            raise NotFound("it has been removed")
        self.reads += 1
        self.now += self.cost
        return SnapshotUsage(1000 * self.reads, 5)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_one_file_system_has_one_value(host: Host) -> None:
    images, containers = host.disk.storage()
    assert images == containers
    assert (images.path, images.size, images.inodes) == (str(host.root), 3207, 31)


def test_two_file_systems_have_a_value_each(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_usage, "_device", len)
    images, containers = host.disk.storage()
    assert (images.path, images.size, images.inodes) == (f"{host.root}/layers", 207, 21)
    assert (containers.path, containers.size) == (f"{host.root}/containers", 3000)


def test_writable_layers_are_not_read_for_each_request(host: Host) -> None:
    first = host.disk.storage()
    host.now += 9.9
    assert host.disk.storage() == first  # with the moment of the measurement
    assert host.reads == 2
    host.now += 0.2
    second = host.disk.storage()
    assert host.reads == 4
    assert second.containers.moment > first.containers.moment


def test_a_slow_measurement_is_made_less_often(host: Host) -> None:
    host.cost = 2.0
    host.disk.storage()
    host.now += 79.0  # 20 times 4 seconds
    host.disk.storage()
    assert host.reads == 2
    host.now += 2.0
    host.disk.storage()
    assert host.reads == 4


def test_requests_at_one_time_share_a_measurement(host: Host) -> None:
    threads = [threading.Thread(target=host.disk.storage) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert host.reads == 2
