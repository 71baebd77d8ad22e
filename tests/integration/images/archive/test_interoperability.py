"""Exchange archives with skopeo and docker; import and bootstrap images."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import InvalidRequest, NotFound
from jaula.images.archive.import_archive import import_tar
from jaula.images.archive.load_archive import load
from jaula.images.archive.save_archive import save
from jaula.images.bootstrap import build
from jaula.images.store.image_store import ImageStore
from jaula.spec import units
from jaula.spec.image_documents import Platform

Loaded = Callable[[bytes], list[str]]

needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
needs_docker = pytest.mark.skipif(not shutil.which("dockerd"), reason="docker is not installed")


def saved(store: ImageStore, *names: str) -> bytes:
    out = io.BytesIO()
    save(store, names, out.write)
    return out.getvalue()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def app(store: ImageStore, loaded: Loaded, make: Any) -> ImageStore:
    loaded(make.pack(make.docker(make.layer("base"), make.layer("top"), names=("app:1", "b:2"))))
    return store


def test_a_saved_image_is_loaded_as_the_same_image(
    app: ImageStore, loaded: Loaded, tmp_path: Path
) -> None:
    before = app.resolve("app:1")
    data = saved(app, "app:1", "b:2")
    app.remove(before.id, force=True)
    assert loaded(data) == ["Loaded image: app:1", "Loaded image: b:2"]
    assert app.resolve("app:1") == before


def test_saving_twice_gives_the_same_bytes(app: ImageStore) -> None:
    assert saved(app, "app:1") == saved(app, "app:1")


def test_an_archive_contains_the_requested_names(app: ImageStore) -> None:
    def names(data: bytes) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            file = tar.extractfile("manifest.json")
            assert file is not None
            return list(json.load(file)[0]["RepoTags"])

    assert names(saved(app, "app:1")) == ["app:1"]
    assert names(saved(app, app.resolve("app:1").id)) == []


def test_nothing_is_written_for_an_unknown_name(app: ImageStore) -> None:
    out = io.BytesIO()
    with pytest.raises(NotFound):
        save(app, ["app:1", "nothing"], out.write)
    with pytest.raises(InvalidRequest):
        save(app, [], out.write)
    assert out.getvalue() == b""


@needs_skopeo
def test_skopeo_reads_both_formats_and_the_store(app: ImageStore, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(saved(app, "app:1"))
    image = app.resolve("app:1")
    for source in (
        f"docker-archive:{archive}:app:1",
        f"oci-archive:{archive}:1",  # as in Docker, the name there is the tag
        f"oci:{tmp_path}/root/images:app:1",
    ):
        result = json.loads(run("skopeo", "inspect", source))
        assert len(result["Layers"]) == 2
        assert json.loads(run("skopeo", "inspect", "--config", source))["rootfs"]["diff_ids"] == [
            *image.layers
        ]


@needs_skopeo
@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_an_archive_of_skopeo_is_loaded(app: ImageStore, format: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    source = f"oci:{tmp_path}/root/images:app:1"
    run("skopeo", "copy", "--insecure-policy", source, f"{format}:{archive}:copied:1")
    before = app.resolve("app:1")
    with archive.open("rb") as file:
        assert list(load(app, file, quiet=True)) == [{"stream": "Loaded image: copied:1\n"}]
    assert app.resolve("copied:1").layers == before.layers


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory whose socket paths stay below 108 bytes."""
    made = Path(tempfile.mkdtemp(prefix="jlt"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def docker(short_path: Path) -> Iterator[Callable[..., str]]:
    """A docker engine of this test, without a network."""
    tmp_path = short_path
    socket = f"unix://{tmp_path}/d.sock"
    engine = subprocess.Popen(
        [
            "dockerd",
            *("--data-root", str(tmp_path / "docker"), "--exec-root", str(tmp_path / "exec")),
            *("-H", socket, "--pidfile", str(tmp_path / "pid"), "--bridge", "none"),
            *("--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", socket, "version"], capture_output=True).returncode:
            assert engine.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield lambda *words: run("docker", "-H", socket, *words)
    finally:
        engine.terminate()
        engine.wait(30)
        # dockerd mounts its data root on itself, to make it shared, and leaves that behind
        subprocess.run(["umount", str(tmp_path / "docker")], capture_output=True)


@needs_docker
def test_docker_and_jaula_load_each_others_archives(
    app: ImageStore, docker: Callable[..., str], tmp_path: Path
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(saved(app, "app:1", "b:2"))
    image = app.resolve("app:1")
    output = docker("load", "-i", str(archive))
    assert "Loaded image: app:1" in output
    assert "Loaded image: b:2" in output
    assert docker("images", "--no-trunc", "-q", "app:1").strip() == image.id
    back = tmp_path / "back.tar"
    docker("save", "-o", str(back), "app:1", "b:2")
    app.remove(image.id, force=True)
    with back.open("rb") as file:
        list(load(app, file))
    assert app.resolve("app:1").id == image.id
    assert app.resolve("b:2").layers == image.layers


def test_a_file_system_is_imported(store: ImageStore, make: Any) -> None:
    image = import_tar(
        store, io.BytesIO(make.layer("1")), "imp:1", ['CMD ["a"]', "ENV A=b"], message="why"
    )
    assert store.resolve("imp:1") == image
    assert image.layers == (make.digest(make.layer("1")),)
    assert (image.config.cmd, image.config.env) == (("a",), ("A=b",))
    assert image.document.comment == "why"
    assert image.created.endswith("Z")
    assert import_tar(store, io.BytesIO(make.layer("1"))).names == ()


def test_nothing_is_imported_as_an_empty_layer(store: ImageStore) -> None:
    image = import_tar(store, io.BytesIO(b""), platform=Platform("s390x", "linux"))
    assert (image.size, len(image.layers)) == (0, 1)
    assert image.platform == Platform("s390x", "linux")
    with pytest.raises(InvalidRequest, match="operating system"):
        import_tar(store, io.BytesIO(b""), platform=Platform("amd64", "windows"))


def test_every_tag_of_a_repository_is_found(app: ImageStore) -> None:
    app.tag("app:1", "app:2")
    app.tag("app:1", "registry.test/app:3")
    assert app.tags_of("app") == ("app:1", "app:2")
    assert app.tags_of("registry.test/app") == ("registry.test/app:3",)
    for ref in ("app:1", "absent", app.resolve("app:1").id, "app@sha256:" + "a" * 64):
        assert app.tags_of(ref) == ()
    with pytest.raises(InvalidRequest, match="digest algorithm"):
        app.tag("app:1", "sha256:1")


def test_members_have_the_time_of_their_image(app: ImageStore) -> None:
    with tarfile.open(fileobj=io.BytesIO(saved(app, "app:1"))) as tar:
        times = {member.name.partition("/")[0]: member.mtime for member in tar}
        blobs = {m.mtime for m in tar if m.name.startswith("blobs/sha256/")}
    assert times["manifest.json"] == times["index.json"] == 0
    created = units.unix_time(app.resolve("app:1").created)
    assert blobs <= {0, int(created)}


def test_a_failed_import_leaves_no_files(store: ImageStore, make: Any, tmp_path: Path) -> None:
    for data, changes in ((b"no tar" * 200, []), (make.layer("1"), ["RUN x"])):
        with pytest.raises(InvalidRequest):
            import_tar(store, io.BytesIO(data), "imp:1", changes)
    assert list((tmp_path / "root/images/blobs/sha256").iterdir()) == []
    assert list((tmp_path / "root/layers").iterdir()) == []


def test_busybox_is_built_the_same_twice(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    steps: list[str] = []
    for name in ("one.tar", "two.tar"):
        assert build("busybox", tmp_path / name, steps.append) == "busybox:latest"
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert steps
    with (tmp_path / "one.tar").open("rb") as file:
        list(load(store, file))
    image = store.resolve("busybox")
    assert image.config.cmd == ("sh",)
    root = Path(store.layers.path(image.layers[0]))
    assert (root / "bin/sh").stat().st_ino == (root / "bin/busybox").stat().st_ino
    assert os.access(root / "bin/ls", os.X_OK)
    assert run(str(root / "bin/echo"), "hi") == "hi\n"


@pytest.mark.parametrize("name", ["alpine", "", "busybox:1.36", "debian:../x", "ubuntu:A B"])
def test_an_image_without_recipe_is_refused_and_leaves_no_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        build(name, tmp_path / "out.tar")
    assert list(tmp_path.iterdir()) == []
