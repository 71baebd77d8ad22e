"""Power failures under an engine: a recorded disk, replayed as each failure leaves it.

One engine on a recorded disk (``tests/harness/recorded_disk.py``) does every operation that stores
something. The ledger has the number of the disk's records before each request and after its answer.
Then the disk is mounted as after a failure at a chosen record, and everything that was answered
before must be there and intact. An operation in progress may be done or not.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.target import Fault
from conftest import image_archive
from harness import builds, leaks
from harness.engine import PrivateEngine, Reply
from harness.recorded_disk import RecordedDisk
from harness.scripted_registry import ScriptedRegistry, layer
from jaula.config import Paths
from jaula.engine.containers.container_inspect import landlock_rules
from jaula.errors import JaulaError
from jaula.images.store.image_store import ImageStore
from jaula.images.store.verify_images import Verification
from jaula.kernel import mounts
from jaula.spec.network_record import NetworkRecord
from jaula.state.container_records import BuildStep, ContainerRecord, Status
from jaula.state.database import Database
from jaula.storage.drivers.driver_choice import select_driver
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.volume_directories import VolumeStore

BASE = layer("base", 200_000)


@dataclass(frozen=True)
class Change:
    """One request. ``value`` is what the object ``(kind, name)`` is afterwards, None if removed."""

    operation: str
    kind: str
    name: str
    value: Any
    before: int
    after: int


@dataclass
class Ledger:
    """The changes in order. Positions are numbers of records of the disk."""

    changes: list[Change] = field(default_factory=list)

    def expected(self, cut: int) -> dict[tuple[str, str], Any]:
        """Return the objects with a certain state at a failure after ``cut`` records. Pure."""
        known: dict[tuple[str, str], Any] = {}
        for change in self.changes:
            if change.after <= cut:
                known[change.kind, change.name] = change.value
            elif change.before < cut:
                known.pop((change.kind, change.name), None)
        return known

    def cuts(self, number: int, choice: random.Random) -> list[tuple[int, str]]:
        """Return ``number`` failures for each operation: half of them at once after its answer."""
        by_operation: dict[str, list[Change]] = {}
        for change in self.changes:
            by_operation.setdefault(change.operation, []).append(change)
        return [
            (
                change.after if n % 2 == 0 else choice.randint(change.before, change.after),
                operation,
            )
            for operation, changes in by_operation.items()
            for n in range(number)
            for change in [choice.choice(changes)]
        ]


class Work:
    """The requests of one client."""

    def __init__(self, engine: PrivateEngine, disk: RecordedDisk) -> None:
        self.ledger = Ledger()
        self._engine = engine
        self._disk = disk
        self._archive = image_archive("busybox").read_bytes()

    def _do(
        self,
        operation: str,
        kind: str,
        name: str,
        perform: Callable[[], Any],
        *,
        removed: bool = False,
    ) -> Any:
        before = self._disk.position()
        value = perform()
        after = self._disk.position()
        self.ledger.changes.append(
            Change(operation, kind, name, None if removed else value, before, after)
        )
        return value

    def _ask(self, method: str, path: str, body: Any = None, *, tar: bool = False) -> Reply:
        headers = {"Content-Type": "application/x-tar"} if tar else None
        reply = self._engine.request(method, path, body, headers=headers)
        if reply.status >= 300 or b'"error"' in reply.body:
            raise Fault(f"{method} {path}: {reply.status} {reply.body[-400:]!r}")
        return reply

    def _image(self, name: str) -> str:
        return str(self._ask("GET", f"/images/{name}/json").json()["Id"])

    def _new_image(self, operation: str, name: str, perform: Callable[[], object]) -> None:
        before = self._disk.position()
        perform()
        after = self._disk.position()
        change = Change(operation, "image", name, self._image(name), before, after)
        self.ledger.changes.append(change)

    def round(self, number: int) -> None:
        """Do every operation once, with names that have the number."""
        ask, tag = self._ask, f"r{number}"
        self._images(tag)
        mounted, network = f"volume-{tag}", f"network-{tag}"
        self._do(
            "volume create",
            "volume",
            mounted,
            lambda: (ask("POST", "/volumes/create", {"Name": mounted, "Labels": {"n": tag}}), 0)[1],
        )
        self._do(
            "network create",
            "network",
            network,
            lambda: ask("POST", "/networks/create", {"Name": network}).json()["Id"],
        )
        name, body = f"box-{tag}", {"Image": "busybox", "Cmd": ["sh", "-c", "echo x >/new; exit 7"]}
        body["HostConfig"] = {"Binds": [f"filled-{tag}:/usr"]}
        self._do(
            "create",
            "container",
            name,
            lambda: ask("POST", f"/containers/create?name={name}", body).json()["Id"],
        )
        self._do("create", "volume", f"filled-{tag}", lambda: len(self._files(f"filled-{tag}")))
        self._do("connect", "member", f"{name} {network}", lambda: self._connect(name, network))
        self._do("run", "exit", name, lambda: self._run(name))
        self._new_image(
            "commit",
            f"committed-{tag}:1",
            lambda: ask("POST", f"/commit?container={name}&repo=committed-{tag}&tag=1"),
        )
        if number % 2:
            self._remove(tag)

    def _images(self, tag: str) -> None:
        ask = self._ask
        with ScriptedRegistry(BASE, layer(f"pull {tag}", 50_000)) as registry:
            pulled = f"{registry.name}/box"
            self._new_image(
                "pull",
                f"{pulled}:1",
                lambda: ask("POST", f"/images/create?fromImage={pulled}&tag=1"),
            )
        imported = f"/images/create?fromSrc=-&repo=imported-{tag}&tag=1"
        self._new_image(
            "import",
            f"imported-{tag}:1",
            lambda: ask("POST", imported, layer(f"import {tag}", 50_000), tar=True),
        )
        if "busybox:latest" not in {change.name for change in self.ledger.changes}:
            self._new_image(
                "load",
                "busybox:latest",
                lambda: ask("POST", "/images/load", self._archive, tar=True),
            )
        files = {
            "Dockerfile": f"FROM busybox\nCOPY file /file\nRUN echo {tag} > /made\n",
            "file": tag * 5000,
        }
        self._new_image(
            "build",
            f"built-{tag}:1",
            lambda: ask("POST", f"/build?t=built-{tag}:1", builds.context(files), tar=True),
        )
        self._do(
            "tag",
            "image",
            f"tagged-{tag}:1",
            lambda: (
                ask("POST", f"/images/built-{tag}:1/tag?repo=tagged-{tag}&tag=1"),
                self._image(f"built-{tag}:1"),
            )[1],
        )

    def _remove(self, tag: str) -> None:
        """Remove some of the objects, so that removals are cut too."""
        ask = self._ask
        self._do(
            "rmi",
            "image",
            f"imported-{tag}:1",
            lambda: ask("DELETE", f"/images/imported-{tag}:1?force=1"),
            removed=True,
        )
        name = f"box-{tag}"
        self._do(
            "rm",
            "container",
            name,
            lambda: ask("DELETE", f"/containers/{name}"),
            removed=True,
        )
        end = self.ledger.changes[-1]
        for kind, gone in (("exit", name), ("member", f"{name} network-{tag}")):
            self.ledger.changes.append(replace(end, kind=kind, name=gone))
        for kind, path in (("volume", "volumes"), ("network", "networks")):
            self._do(
                f"{kind} rm",
                kind,
                f"{kind}-{tag}",
                lambda kind=kind, path=path: ask("DELETE", f"/{path}/{kind}-{tag}"),  # type: ignore[misc]
                removed=True,
            )

    def _connect(self, name: str, network: str) -> bool:
        self._ask("POST", f"/networks/{network}/connect", {"Container": name})
        return True

    def _run(self, name: str) -> int:
        self._ask("POST", f"/containers/{name}/start")
        return int(self._ask("POST", f"/containers/{name}/wait").json()["StatusCode"])

    def _files(self, volume: str) -> list[str]:
        data = self._engine.root / "lib" / "volumes" / volume / "_data"
        return [name for _, _, names in os.walk(data) for name in names]


class Inspection:
    """The state of an engine on a disk after a power failure. ``faults`` are what is wrong."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.faults: list[str] = []
        paths = Paths(root, scratch)
        database = Database(paths.database)
        self._containers = {r.name: r for _, r in database.all("containers", ContainerRecord)}
        self._networks = {n.name: n for _, n in database.all("networks", NetworkRecord)}
        steps = [step for _, step in database.all("build_steps", BuildStep)]
        database.close()
        layers = LayerStore(paths)
        self._images = ImageStore(paths, layers)
        self._snapshots = select_driver(paths, None, layers)
        self._volumes = VolumeStore(paths)
        self._root = root
        self._check_specs()
        self._check_images(layers)
        self._check_steps(layers, steps)

    def _check_images(self, layers: LayerStore) -> None:
        for manifest, reason in self._images.damaged().items():
            self.faults.append(f"manifest {manifest} is damaged: {reason}")
        verification = Verification(self._images)
        for image in self._images.list():
            for damage in verification.run(image).damages:
                self.faults.append(f"image {image.names} is damaged: {damage}")

    def _check_specs(self) -> None:
        """Check what inspect reads of the last start: it is derived, and may be gone or torn."""
        for record in self._containers.values():
            try:
                landlock_rules(self._root / "containers" / record.id / "config.json")
            except Exception as error:  # noqa: BLE001 - inspect would be a 500
                self.faults.append(f"inspect of {record.name}: {error!r}")

    def _check_steps(self, layers: LayerStore, steps: list[BuildStep]) -> None:
        """Check the layers of build steps: the next build would use them."""
        for step in steps:
            if not step.layer or not layers.is_intact(step.layer):
                continue  # the cache ignores a step without its layer
            if not self._images.blobs.is_intact(step.blob, step.blob_size):
                continue
            with self._images.blobs.open(step.blob) as blob:
                for difference in layers.check(blob, step.layer):
                    self.faults.append(f"build step {step.instruction!r}: {difference}")

    def compare(self, expected: dict[tuple[str, str], Any]) -> None:
        """Compare with the objects that the ledger expects."""
        for (kind, name), value in expected.items():
            try:
                actual = getattr(self, f"_{kind}")(name)
            except (JaulaError, OSError) as error:
                actual = f"{type(error).__name__}: {error}"
            if actual != value:
                self.faults.append(f"{kind} {name} is {actual!r}, the answer said {value!r}")

    def _image(self, name: str) -> str | None:
        names = {name for image in self._images.list() for name in image.names}
        full = next((n for n in names if n == name or n.endswith(f"/{name}")), None)
        return None if full is None else self._images.resolve(full).id

    def _container(self, name: str) -> str | None:
        record = self._containers.get(name)
        if record is None:
            return None
        if not self._snapshots.exists(record.id):
            return "without files"
        self._snapshots.root(record.id)
        return record.id

    def _exit(self, name: str) -> int | None:
        record = self._containers.get(name)
        return record.exit_code if record and record.status is Status.EXITED else None

    def _member(self, name: str) -> bool | None:
        container, _, network = name.partition(" ")
        record = self._containers.get(container)
        return None if record is None else network in (record.networks or {})

    def _network(self, name: str) -> str | None:
        network = self._networks.get(name)
        return network.id if network is not None and network.pools else None

    def _volume(self, name: str) -> int | None:
        if not (self._root / "volumes" / name).exists():
            return None
        volume = self._volumes.get(name)
        if name.startswith("volume-") and volume.labels != {"n": name.removeprefix("volume-")}:
            return -1
        return sum(len(names) for _, _, names in os.walk(volume.path))


def private_mounts() -> None:
    """Leave the mount namespace: an engine of another test would keep a replayed disk mounted."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000) == -1:
        raise OSError(ctypes.get_errno(), "unshare")
    mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.PRIVATE, None)


@contextlib.contextmanager
def _engine(top: Path, index: int, durability: str) -> Iterator[PrivateEngine]:
    root = Path(tempfile.mkdtemp(prefix="jlt", dir=top))
    engine = PrivateEngine(index, root=root, extra_flags=("--durability", durability))
    engine.start()
    try:
        yield engine
    finally:
        engine.discard()
        leaks.clean_up(engine)


def record(disk: RecordedDisk, index: int, rounds: int, durability: str) -> tuple[Ledger, str]:
    """Let an engine work on the disk. Return its ledger and the name of its directory."""
    with disk.mounted() as top, _engine(top, index, durability) as engine:
        disk.sync()
        work = Work(engine, disk)
        for number in range(rounds):
            work.round(number)
        return work.ledger, engine.root.name


def campaign(cuts: int, rounds: int, seed: int, kind: str, durability: str) -> int:
    """Cut each operation ``cuts`` times and print the faults. Return the exit status."""
    private_mounts()
    started = time.monotonic()
    choice = random.Random(seed)
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="jlp", dir="/var/tmp") as name:
        directory = Path(name)
        disk = RecordedDisk(directory, kind)
        ledger, root = record(disk, os.getpid() % 250 + 1, rounds, durability)
        chosen = ledger.cuts(cuts, choice)
        operations: dict[int, list[str]] = {}
        for cut, operation in chosen:
            operations.setdefault(cut, []).append(operation)
        for cut, top in disk.replays(list(operations), choice):
            inspection = Inspection(top / root / "lib", directory / "run")
            inspection.compare(ledger.expected(cut))
            for operation in operations[cut]:
                faults[operation] += bool(inspection.faults)
            if inspection.faults:
                print(f"record {cut}, {', '.join(operations[cut])}: {inspection.faults[:3]}")
    done = Counter(operation for _, operation in chosen)
    records = ledger.changes[-1].after
    print(
        f"{done.total()} power failures on {kind}, {len(operations)} different, among {records}"
        f" writes and flushes, {faults.total()} with a fault, {time.monotonic() - started:.0f} s,"
        f" seed {seed}"
    )
    print(
        json.dumps({name: f"{done[name]} cuts, {faults[name]} faults" for name in done}, indent=1)
    )
    return 1 if faults.total() else 0
