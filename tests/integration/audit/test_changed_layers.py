"""Layers and documents of an image that another program changes fail in the right row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, leaks, loop_mount
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.features.verify.model.result import Verdict

DOCUMENTS, LAYERS, CONTENTS = "image documents", "image layers", "layer contents"
BUILD = "FROM busybox\nRUN mkdir /opt && echo a > /opt/a && echo b > /etc/b\nRUN echo c > /etc/c\n"


@pytest.fixture(scope="module")
def image(engine: PrivateEngine, busybox: str) -> str:
    """An image with three layers."""
    return build(engine)


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine, image: str) -> Iterator[Audited]:
    with containers.running(engine, image) as name:
        yield Audited(engine, name)


def build(engine: PrivateEngine) -> str:
    name = containers.unique("layers")
    done = engine.cli("jaula", "build", "-t", name, "-", input=BUILD)
    assert done.returncode == 0, done.stderr
    return name


def engine_with_container(new_engine: Callable[..., PrivateEngine]) -> tuple[PrivateEngine, str]:
    """Create the container ``one`` of a built image; return the engine and the image."""
    engine = new_engine()
    load_image(engine, "busybox")
    name = build(engine)
    assert engine.cli("jaula", "create", "--name", "one", name, "sleep", "600").returncode == 0
    return engine, name


def layer_paths(engine: PrivateEngine, image: str) -> list[Path]:
    """Return the directories of an image's layers, base first."""
    document = engine.request("GET", f"/images/{image}/json").json()
    store = engine.root / "lib" / "layers"
    return [
        store / digest.removeprefix("sha256:") / "fs" for digest in document["RootFS"]["Layers"]
    ]


def documents(engine: PrivateEngine, image: str) -> dict[str, Path]:
    """Return the blobs of an image's configuration and manifest."""
    blobs = engine.root / "lib" / "images" / "blobs" / "sha256"
    id = engine.request("GET", f"/images/{image}/json").json()["Id"]
    index = json.loads((blobs.parents[1] / "index.json").read_bytes())
    for described in index["manifests"]:
        path = blobs / described["digest"].removeprefix("sha256:")
        if json.loads(path.read_bytes())["config"]["digest"] == id:
            return {"configuration": blobs / id.removeprefix("sha256:"), "manifest": path}
    raise AssertionError(f"no manifest of {image}")


@contextmanager
def bound(source: Path, target: Path, *namespace: str) -> Iterator[None]:
    """Bind a directory over another one, in the mount namespace that nsenter(1) enters."""
    subprocess.run([*namespace, "mount", "--bind", str(source), str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run([*namespace, "umount", str(target)], check=True)


def copy(path: Path) -> Path:
    """Copy a layer's directory beside its own, with every attribute."""
    target = path.with_name("copy")
    subprocess.run(["cp", "-a", str(path), str(target)], check=True)
    return target


@contextmanager
def contents(container: Audited) -> Iterator[None]:
    container.snapshot.contents = True
    try:
        yield
    finally:
        container.snapshot.contents = False


def test_the_layers_of_an_image_hold(shared: Audited) -> None:
    rows = shared.rows()
    assert rows[DOCUMENTS].effective == "configuration and 1 manifest intact"
    assert (rows[LAYERS].requested, rows[LAYERS].effective) == (
        "3 layers",
        "3 layers seen in the root",
    )
    assert rows[DOCUMENTS].verdict is rows[LAYERS].verdict is Verdict.HOLDS
    assert CONTENTS not in rows
    with contents(shared):
        assert shared.rows()[CONTENTS].verdict is Verdict.HOLDS


@pytest.mark.parametrize("name", ["configuration", "manifest"])
def test_a_changed_document_of_an_image_fails(
    engine: PrivateEngine, image: str, shared: Audited, name: str
) -> None:
    path = documents(engine, image)[name]
    former = path.read_bytes()
    path.write_bytes(former + b" ")
    try:
        assert name in shared.failing()[DOCUMENTS]
    finally:
        path.write_bytes(former)
    assert shared.failing() == {}, shared.explain()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_directory_bound_over_a_layer_fails(
    engine: PrivateEngine, image: str, shared: Audited, number: int
) -> None:
    path = layer_paths(engine, image)[number]
    other = copy(path)
    try:
        with bound(other, path):
            assert "it is mounted over" in shared.failing()[LAYERS]
        assert shared.failing() == {}, shared.explain()
    finally:
        shutil.rmtree(other)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("flags", [(), ("--userns", "host"), ("--read-only",)])
def test_a_container_that_started_on_another_directory_fails(
    engine: PrivateEngine, image: str, number: int, flags: tuple[str, ...]
) -> None:
    """A directory was bound over the layer in the engine's mount namespace."""
    assert engine.process is not None
    namespace = ("nsenter", "-t", str(engine.process.pid), "-m")
    path = layer_paths(engine, image)[number]
    other = copy(path)
    try:
        with bound(other, path, *namespace):
            done = engine.cli("jaula", "run", "-d", *flags, image, "sleep", "600")
            assert done.returncode == 0, done.stderr
        name = done.stdout.strip()
        assert "is of another directory" in Audited(engine, name).failing()[LAYERS]
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")
        shutil.rmtree(other)


def test_a_layer_replaced_while_its_container_runs_fails(
    engine: PrivateEngine, image: str, shared: Audited
) -> None:
    path = layer_paths(engine, image)[1]
    other, former = copy(path), path.with_name("former")
    path.rename(former)
    other.rename(path)
    try:
        assert "is of another directory" in shared.failing()[LAYERS]
    finally:
        shutil.rmtree(path)
        former.rename(path)
    assert shared.failing() == {}, shared.explain()


def test_a_layer_replaced_while_no_engine_runs_is_found_by_its_contents(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine, _ = engine_with_container(new_engine)
    engine.stop()
    path = max(engine.root.glob("lib/layers/*/fs/opt")).parent
    other = copy(path)
    (other / "opt" / "a").write_text("z\n")
    shutil.rmtree(path)
    other.rename(path)
    engine.start()
    assert engine.cli("jaula", "start", "one").returncode == 0
    container = Audited(engine, "one")
    assert container.failing() == {}  # the root is made of the directories of the layers
    with contents(container):
        assert "/opt/a: " in container.failing()[CONTENTS]
    done = engine.cli("jaula", "verify", "--contents", "one")
    assert done.returncode == 1
    assert "/opt/a" in done.stdout


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "opt" / "a").write_text("z\n"),
        lambda path: (path / "opt" / "new").touch(),
        lambda path: (path / "opt" / "a").unlink(),
        lambda path: (path / "opt" / "a").chmod(0o4755),
    ],
)
def test_a_changed_file_of_a_layer_is_found_by_its_contents(
    new_engine: Callable[..., PrivateEngine], change: Callable[[Path], None]
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    name = build(engine)
    assert engine.cli("jaula", "run", "-d", "--name", "one", name, "sleep", "600").returncode == 0
    assert engine.cli("jaula", "verify", "--contents", "--all").returncode == 0
    change(layer_paths(engine, name)[1])
    container = Audited(engine, "one")
    with contents(container):
        assert set(container.failing()) == {CONTENTS}
    assert engine.cli("jaula", "verify", "--contents", "--all").returncode == 1


def test_a_layer_that_several_containers_share_is_unpacked_once(
    engine: PrivateEngine, image: str, shared: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaula.storage.layers.layer_store import LayerStore

    unpacked: list[str] = []
    check = LayerStore.check

    def counted(self: LayerStore, stream: object, diff_id: str, **options: bool) -> object:
        unpacked.append(diff_id)
        return check(self, stream, diff_id, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LayerStore, "check", counted)
    snapshot = shared.snapshot.renewed()
    for _ in range(3):
        verified = snapshot.verified_image(str(engine.root / "lib"), shared.inspect["Image"])
        assert verified.damages == ()
    assert len(unpacked) == len(set(unpacked)) == 3


def test_another_list_of_layers_fails(new_engine: Callable[..., PrivateEngine]) -> None:
    """The list that a start mounts, changed while no engine runs."""
    engine, _ = engine_with_container(new_engine)
    id = containers.inspect(engine, "one")["Id"]
    engine.stop()
    path = engine.root / "lib" / "containers" / id / "layers.json"
    path.write_text(json.dumps(json.loads(path.read_bytes())[:-1]))
    engine.start()
    assert engine.cli("jaula", "start", "one").returncode == 0
    told = Audited(engine, "one").failing()[LAYERS]
    assert "layers.json lists other layers" in told
    assert "the root has 2 layers" in told


def test_another_upper_directory_fails(engine: PrivateEngine, shared: Audited) -> None:
    upper = Path(shared.inspect["GraphDriver"]["Data"]["UpperDir"])
    former = upper.with_name("former")
    upper.rename(former)
    upper.mkdir()
    try:
        assert "the upper directory is not" in shared.failing()[LAYERS]
    finally:
        upper.rmdir()
        former.rename(upper)
    assert shared.failing() == {}, shared.explain()


def test_what_a_program_inside_does_with_its_root_is_no_failure(
    engine: PrivateEngine, image: str
) -> None:
    script = (
        "rm -rf /opt /etc/c; mkdir /opt; echo x > /opt/a; mv /usr /usr2; ln -s /tmp /usr; "
        "echo d >> /etc/b; chmod 700 /etc; rm -rf /home /var; mkdir -p /var/x; sleep 600"
    )
    with containers.running(engine, image, "sh", "-c", script) as name:
        container = Audited(engine, name)
        directory = f"/proc/{container.pid}/root/var/x"
        containers.eventually(lambda: os.path.isdir(directory), "the script has done its work")
        assert container.failing() == {}, container.explain()
        with contents(container):
            assert container.failing() == {}, container.explain()


def test_an_image_that_lost_its_names_is_no_failure(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    """The engine keeps an image as long as a container has it."""
    engine, name = engine_with_container(new_engine)
    assert engine.cli("jaula", "rmi", "-f", name).returncode == 0
    assert engine.cli("jaula", "image", "prune", "-af").returncode == 0
    assert engine.cli("jaula", "start", "one").returncode == 0
    container = Audited(engine, "one")
    with contents(container):
        assert container.failing() == {}, container.explain()


@pytest.mark.parametrize("driver", ["overlay", "btrfs", "vfs"])
def test_every_storage_driver_holds(driver: str, worker_index: int, tmp_path: Path) -> None:
    index = (worker_index + 37) % 250 + 1
    with loop_mount.mounted(tmp_path, "mkfs.btrfs", "-q") as top:
        flags = ("--storage-driver", driver)
        engine = PrivateEngine(index, root=top / f"jlt{os.getpid()}", extra_flags=flags)
        engine.root.mkdir()
        with leaks.nothing_left(engine):
            load_image(engine, "busybox")
            name = build(engine)
            words = ("run", "-d", "--name", "one", name, "sleep", "600")
            assert engine.cli("jaula", *words).returncode == 0
            container = Audited(engine, "one")
            with contents(container):
                rows = container.rows()
                assert container.failing() == {}, container.explain()
            for row in (DOCUMENTS, LAYERS, CONTENTS):
                assert rows[row].verdict is Verdict.HOLDS, container.explain()
            if driver == "overlay":
                return
            root = engine.root / "lib" / "containers" / container.inspect["Id"] / "rootfs"
            root.rename(root.with_name("former"))
            root.mkdir()
            try:
                assert "the root is not" in container.failing()[LAYERS]
            finally:
                root.rmdir()
                root.with_name("former").rename(root)
