"""Layers as eStargz and zstd:chunked, exchanged with podman and skopeo by a registry."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.containers import unique
from harness.engine import PrivateEngine
from harness.registry import Registry

pytestmark = [
    pytest.mark.needs("docker-registry", "podman", "skopeo"),
    pytest.mark.timeout(240),
]

TABLES = {
    "estargz": "containerd.io/snapshot/stargz/toc.digest",
    "zstd:chunked": "io.github.containers.zstd-chunked.manifest-checksum",
}


class PrivatePodman:
    """podman with a storage of its own, which pulls the files that it lacks only."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._settings = directory / "storage.conf"
        self._settings.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/root"\n'
            f'runroot = "{directory}/run"\n[storage.options]\n'
            'pull_options = {enable_partial_images = "true", convert_images = "false"}\n'
        )

    def __call__(self, *words: str) -> str:
        variables = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self._settings),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }
        done = subprocess.run(
            ["podman", *words], env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[PrivatePodman]:
    made = PrivatePodman(tmp_path / "podman")
    yield made
    made("image", "umount", "-a")
    made("rmi", "-af")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as made:
        yield made


@pytest.fixture
def name(engine: PrivateEngine, registry: Registry, busybox: str) -> Iterator[str]:
    chosen = f"{registry.name}/{unique('chunked')}:1"
    must(engine, "tag", busybox, chosen)
    yield chosen
    engine.request("DELETE", f"/images/{chosen}?force=1")


def must(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stdout + done.stderr + engine.log_tail()
    return done.stdout


def manifest_of(registry: Registry, name: str) -> dict[str, Any]:
    path, _, tag = name.removeprefix(f"{registry.name}/").partition(":")
    manifest: dict[str, Any] = registry.manifest(path, tag)[1]
    return manifest


def diff_ids(engine: PrivateEngine, name: str) -> list[str]:
    found: list[str] = json.loads(must(engine, "image", "inspect", name))[0]["RootFS"]["Layers"]
    return found


def tree(root: str) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, size and content of the files below a directory."""
    found = {}
    for path in Path(root).rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_nlink, content)
    return found


def test_podman_fetches_the_files_of_zstd_chunked(
    engine: PrivateEngine, registry: Registry, podman: PrivatePodman, name: str, tmp_path: Path
) -> None:
    output = must(engine, "push", "--compression", "zstd:chunked", name)
    assert "table of contents" not in output
    (layer,) = manifest_of(registry, name)["layers"]
    assert TABLES["zstd:chunked"] in layer["annotations"]
    podman("pull", "-q", "--tls-verify=false", name)
    log = registry.log.read_text()
    assert "http.response.status=206" in log
    whole = "http.response.status=200"
    assert not [line for line in log.splitlines() if layer["digest"] in line and whole in line]
    # podman writes the tar again from the files and the tar-split data: it is the same one.
    podman("save", "-q", "--format", "oci-dir", "-o", str(tmp_path / "saved"), name)
    plain = tmp_path / "plain"
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-decompress", f"oci:{tmp_path}/saved", f"dir:{plain}"],
        check=True,
    )
    (diff_id,) = diff_ids(engine, name)
    data = (plain / diff_id.removeprefix("sha256:")).read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == diff_id


def test_estargz_is_an_image_of_its_own(
    engine: PrivateEngine, registry: Registry, podman: PrivatePodman, name: str
) -> None:
    before = diff_ids(engine, name)
    must(engine, "push", "--compression", "estargz", "--compression-level", "6", name)
    assert diff_ids(engine, name) == before
    (layer,) = manifest_of(registry, name)["layers"]
    assert TABLES["estargz"] in layer["annotations"]
    podman("pull", "-q", "--tls-verify=false", name)
    shown = json.loads(podman("image", "inspect", name))
    assert shown[0]["RootFS"]["Layers"] != before
    files = tree(podman("image", "mount", name).strip())
    assert {"stargz.index.json", ".no.prefetch.landmark", "bin/busybox"} <= set(files)
    must(engine, "pull", name)
    assert diff_ids(engine, name) == shown[0]["RootFS"]["Layers"]
    assert must(engine, "run", "--rm", name, "echo", "here") == "here\n"


@pytest.mark.parametrize("program", ["podman", "skopeo"])
def test_images_that_others_push_as_zstd_chunked_are_pulled(
    engine: PrivateEngine,
    registry: Registry,
    podman: PrivatePodman,
    name: str,
    program: str,
    busybox_archive: Path,
) -> None:
    other = name.removesuffix(":1") + ":other"
    if program == "podman":
        loaded = podman("load", "-q", "-i", str(busybox_archive)).split()[-1]
        words = ("--compression-format", "zstd:chunked", "--tls-verify=false")
        podman("push", "-q", *words, loaded, f"docker://{other}")
    else:
        words = ("--dest-compress-format", "zstd:chunked", "--dest-tls-verify=false")
        source = f"docker-archive:{busybox_archive}"
        subprocess.run(["skopeo", "copy", "-q", *words, source, f"docker://{other}"], check=True)
    (layer,) = manifest_of(registry, other)["layers"]
    assert TABLES["zstd:chunked"] in layer["annotations"]
    must(engine, "pull", other)
    assert diff_ids(engine, other) == diff_ids(engine, name)
    assert must(engine, "run", "--rm", other, "echo", "here") == "here\n"
    # A layer that has its table of contents is pushed as it is.
    must(engine, "tag", other, f"{other}-again")
    must(engine, "push", "--compression", "zstd:chunked", f"{other}-again")
    assert manifest_of(registry, f"{other}-again")["layers"] == [layer]
    must(engine, "rmi", "-f", other, f"{other}-again")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--compression", "lz4"), "unsupported compression type 'lz4'"),
        (("--compression", "gzip", "--compression-level", "10"), "invalid compression level: 10"),
        (("--compression-level", "high"), "invalid argument"),
    ],
)
def test_a_bad_compression_is_refused(
    engine: PrivateEngine, registry: Registry, name: str, words: tuple[str, ...], text: str
) -> None:
    done = engine.cli("jaula", "push", *words, name)
    assert done.returncode in (1, 125) and text in done.stderr
    assert name.removeprefix(f"{registry.name}/").partition(":")[0] not in registry.log.read_text()
