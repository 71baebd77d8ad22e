"""Power failures on a disk of the test's own: what was acknowledged is there and intact.

ext4's shutdown ioctl ends the file system at an instant: nothing that is still in the caches is
written, the journal neither. After the next mount the disk is as after a loss of power.
``JAULA_POWER_CUTS`` sets the number of instants.
"""

from __future__ import annotations

import fcntl
import gc
import io
import os
import random
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness import layers as by_hand
from harness.scripted_registry import layer
from jaula.config import Paths
from jaula.engine.networks.network_store import NetworkStore
from jaula.errors import JaulaError
from jaula.images.archive.import_archive import import_tar
from jaula.images.archive.load_archive import load
from jaula.images.store.image_store import ImageStore
from jaula.images.store.verify_images import Verification
from jaula.spec.network_record import NetworkRecord
from jaula.state.database import Database
from jaula.storage.layers.layer_store import LayerFormat, LayerStore
from jaula.storage.volume_directories import VolumeStore

CUTS = int(os.environ.get("JAULA_POWER_CUTS", "8"))
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
BASE = layer("base", 300_000)
COMMON = os.urandom(50_000)


class Disk:
    """An ext4 file system in a file, which can lose its power."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.top = directory / "disk"
        self.top.mkdir()
        with self._image.open("wb") as file:
            file.truncate(128 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=True)

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", "loop", str(self._image), str(self.top)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"this kernel does not mount ext4 on a loop device: {done.stderr}")

    def cut(self) -> None:
        descriptor = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount, and continue with a copy of the disk.

        Another mount namespace may keep the failed file system, which the next mount of the same
        file would get.
        """
        for _ in range(50):
            gc.collect()  # a failed operation may have left an open file
            if subprocess.run(["umount", str(self.top)], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", str(self.top)], check=True)
            pytest.fail("the disk is still in use")
        copy = self._image.with_suffix(".copy")
        subprocess.run(["cp", "--sparse=always", str(self._image), str(copy)], check=True)
        copy.replace(self._image)


def opened(top: Path, *, durable: bool = True, format: LayerFormat = "directory") -> ImageStore:
    paths = Paths(top / "root", top / "run")
    return ImageStore(paths, LayerStore(paths, format=format), durable=durable)


class Work:
    """Loads, imports, tags, removals, volumes and networks, until the disk fails."""

    def __init__(self, top: Path, store: ImageStore, make: Any, turn: int) -> None:
        self._store = store
        self._volumes = VolumeStore(Paths(top / "root", top / "run"))
        self.database = Database(top / "root" / "jaula.db")
        self._make = make
        self._turn = turn
        self.acknowledged: set[str] = set()
        self.volumes: set[str] = set()
        self.networks: set[str] = set()
        self.removed: set[str] = set()

    def run(self) -> None:
        try:
            for number in range(1000):
                self._step(f"{self._turn}-{number}", number)
        except (JaulaError, OSError):
            return  # the power is off

    def _step(self, text: str, number: int) -> None:
        name = f"image{text}:1"
        top = by_hand.layer(((f"own{text}", os.urandom(20_000)), ("common", COMMON)))
        if number % 3 == 0:
            import_tar(self._store, io.BytesIO(top), name)
        else:
            archive = self._make.pack(self._make.docker(BASE, top, names=(name,)))
            list(load(self._store, io.BytesIO(archive)))
        self.acknowledged.add(name)
        self._volumes.create(f"volume{text}", {"turn": str(self._turn)})
        self.volumes.add(f"volume{text}")
        network = NetworkRecord(f"network{text}", f"id{text}", created=1, bridge="b")
        NetworkStore(self.database).save(network)
        self.database.sync()
        self.networks.add(network.name)
        if number % 4 == 3:
            self._store.tag(name, f"tag{text}:1")
            self.acknowledged.add(f"tag{text}:1")
        if number % 5 == 4:
            self.removed.add(name)  # a removal in progress may be done or not
            self._store.remove(name, force=True)


@pytest.mark.parametrize("format", ["directory", "erofs"])
def test_what_was_acknowledged_survives_a_power_failure(
    tmp_path: Path, make: Any, format: LayerFormat
) -> None:
    disk = Disk(tmp_path)
    expected: set[str] = set()
    expected_volumes: set[str] = set()
    expected_networks: set[str] = set()
    for turn in range(CUTS):
        disk.mount()
        try:
            store = opened(disk.top, format=format)
            store.sweep()
            assert store.damaged() == {}
            names = {name for image in store.list() for name in image.names}
            assert names >= expected
            verification = Verification(store)
            assert [verification.run(image).damages for image in store.list()] == [()] * len(
                store.list()
            )
            for name in sorted(names)[:-4]:  # the disk stays small
                store.remove(name)
            kept = set(sorted(names)[-4:])
            volumes = VolumeStore(Paths(disk.top / "root", disk.top / "run"))
            assert {volume.name for volume in volumes.list()} >= expected_volumes
            assert volumes.without_metadata() == []
            work = Work(disk.top, store, make, turn)
            networks = NetworkStore(work.database)
            networks.load()
            assert {network.name for network in networks} >= expected_networks
            thread = threading.Thread(target=work.run)
            thread.start()
            time.sleep(random.random() * 0.4)
            disk.cut()
            thread.join()
            store.layers.close()
            expected = kept | (work.acknowledged - work.removed)
            expected_volumes |= work.volumes
            expected_networks |= work.networks
            with suppress(JaulaError):
                work.database.close()
        finally:
            disk.unmount()
