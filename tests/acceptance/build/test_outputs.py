"""Annotations, compressions and directories of a build's outputs, with Docker's own clients."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from harness.chunked_layers import contents, read_estargz, read_zstd_chunked
from harness.containers import unique
from harness.engine import PrivateEngine
from harness.registry import Registry
from jaula.storage.compression import zstd_module

PLUGIN = "/usr/libexec/docker/cli-plugins/docker-buildx"
pytestmark = [pytest.mark.needs(PLUGIN), pytest.mark.timeout(240)]

Docker = Callable[..., "CompletedProcess[str]"]
Document = dict[str, Any]

HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
BOTH = f"linux/{HOST},linux/s390x"
OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
INDEX = f"{OCI}index.v1+json"
PLAIN = "--provenance=false"


@pytest.fixture
def docker(engine: PrivateEngine) -> Docker:
    def run(*words: str) -> CompletedProcess[str]:
        variables = engine.environment()
        del variables["DOCKER_BUILDKIT"]
        return engine.cli("docker", *words, env=variables, timeout=120)

    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a context whose image has two layers."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY one /\nCOPY two /\n")
    for name in ("one", "two"):
        (directory / name).write_text(f"{name} {tmp_path}\n" * 5000)
    return directory


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    chosen = unique("output")
    yield f"{chosen}:1"
    engine.request("DELETE", f"/images/{chosen}:1?force=1")


def build(docker: Docker, *words: str) -> str:
    done = docker("buildx", "build", "--progress", "plain", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(docker: Docker, *words: str) -> str:
    done = docker("buildx", "build", *words)
    assert done.returncode == 1, done.stderr
    return done.stderr


class Layout:
    """An OCI layout in a directory of the client."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index: Document = json.loads((path / "index.json").read_text())
        assert json.loads((path / "oci-layout").read_text())["imageLayoutVersion"] == "1.0.0"

    def blob(self, descriptor: Document) -> bytes:
        digest = descriptor["digest"].removeprefix("sha256:")
        data = (self.path / "blobs" / "sha256" / digest).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest and len(data) == descriptor["size"]
        return data

    def document(self, descriptor: Document) -> Document:
        document: Document = json.loads(self.blob(descriptor))
        assert document["mediaType"] == descriptor["mediaType"]
        return document


def unpack(archive: Path, target: Path) -> Layout:
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return Layout(target)


def pushed(registry: Registry, name: str) -> Document:
    """Return the document of a tag at a registry."""
    repository, tag = name.split("/")[1].split(":")
    document: Document = registry.manifest(repository, tag)[1]
    return document


# -- directories -----------------------------------------------------------------------------------


def test_an_image_is_written_into_a_directory(
    docker: Docker, place: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "layout"
    build(docker, PLAIN, "-t", name, "-o", f"type=oci,tar=false,dest={target}", str(place))
    layout = Layout(target)
    (listed,) = layout.index["manifests"]
    assert listed["annotations"]["org.opencontainers.image.ref.name"]
    manifest = layout.document(listed)
    assert manifest["config"]["mediaType"] == f"{OCI}config.v1+json"
    config = json.loads(layout.blob(manifest["config"]))
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        assert layer["mediaType"] == f"{OCI}layer.v1.tar+gzip"
        content = gzip.decompress(layout.blob(layer))
        assert diff_id == "sha256:" + hashlib.sha256(content).hexdigest()
    (place / "Dockerfile").write_text("FROM base\nCOPY one /three\n")
    context = f"base=oci-layout://{target}@{listed['digest']}"
    build(docker, "--build-context", context, "-o", "type=cacheonly", str(place))
    # A second build into the same directory finds its blobs there.
    build(
        docker,
        PLAIN,
        "-o",
        f"type=oci,tar=false,dest={target}",
        str(place),
        "--build-context",
        context,
    )


def test_an_index_is_written_into_a_directory(docker: Docker, place: Path, tmp_path: Path) -> None:
    target = tmp_path / "layout"
    words = ("--platform", BOTH, "--provenance=true")
    build(docker, *words, "-o", f"type=oci,tar=false,dest={target}", str(place))
    layout = Layout(target)
    index = layout.document(layout.index["manifests"][0])
    assert [m["platform"]["architecture"] for m in index["manifests"]] == [
        HOST,
        "s390x",
        "unknown",
        "unknown",
    ]
    for descriptor in index["manifests"]:
        manifest = layout.document(descriptor)
        for part in (manifest["config"], *manifest["layers"]):
            layout.blob(part)


# -- compression -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        ("compression=gzip,compression-level=9", "+gzip"),
        ("compression=zstd,compression-level=22", "+zstd"),
        ("compression=zstd", "+zstd"),
        ("compression=uncompressed", ""),
    ],
)
def test_layers_have_the_requested_compression(
    engine: PrivateEngine,
    docker: Docker,
    place: Path,
    tmp_path: Path,
    name: str,
    words: str,
    suffix: str,
) -> None:
    archive = tmp_path / "oci.tar"
    build(docker, PLAIN, "-t", name, "-o", f"type=oci,{words},dest={archive}", str(place))
    layout = unpack(archive, tmp_path / "layout")
    manifest = layout.document(layout.index["manifests"][0])
    decompress = {"+gzip": gzip.decompress, "+zstd": zstd_module().decompress}.get(suffix, bytes)
    diff_ids = json.loads(layout.blob(manifest["config"]))["rootfs"]["diff_ids"]
    for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        assert layer["mediaType"] == f"{OCI}layer.v1.tar{suffix}"
        content = decompress(layout.blob(layer))
        assert diff_id == "sha256:" + hashlib.sha256(content).hexdigest()
    assert name in docker("load", "-i", str(archive)).stdout
    docker("rmi", "-f", name)
    with Registry(tmp_path / "registry") as registry:
        remote = f"{registry.name}/{name}"
        build(docker, PLAIN, "-t", remote, "-o", f"type=image,push=true,{words}", str(place))
        manifest = pushed(registry, remote)
        assert {layer["mediaType"] for layer in manifest["layers"]} == {
            f"{OCI}layer.v1.tar{suffix}"
        }
        docker("rmi", "-f", remote)
        assert docker("pull", remote).returncode == 0
        docker("rmi", "-f", remote)


def test_only_force_converts_the_layers_of_the_base(
    docker: Docker, place: Path, tmp_path: Path, name: str
) -> None:
    with Registry(tmp_path / "registry") as registry:
        base = f"{registry.name}/{name}"
        build(docker, PLAIN, "-t", base, "-o", "type=image,push=true", str(place))
        docker("rmi", "-f", base)
        docker("buildx", "prune", "-af")
        (place / "Dockerfile").write_text(f"FROM {base}\nCOPY one /three\n")
        for force, expected in (("false", ["+gzip", "+gzip", ""]), ("true", ["", "", ""])):
            target = tmp_path / force
            words = f"type=oci,tar=false,compression=uncompressed,force-compression={force}"
            build(docker, PLAIN, "-o", f"{words},dest={target}", str(place))
            layout = Layout(target)
            manifest = layout.document(layout.index["manifests"][0])
            kinds = [layer["mediaType"] for layer in manifest["layers"]]
            assert kinds == [f"{OCI}layer.v1.tar{suffix}" for suffix in expected]
            for layer in manifest["layers"]:
                layout.blob(layer)
        docker("rmi", "-f", base)


@pytest.mark.parametrize("kind", ["estargz", "zstd:chunked"])
def test_layers_with_a_table_of_contents(
    docker: Docker, place: Path, tmp_path: Path, name: str, kind: str
) -> None:
    with Registry(tmp_path / "registry") as registry:
        remote = f"{registry.name}/{name}"
        build(docker, PLAIN, "-t", remote, "-o", f"type=registry,compression={kind}", str(place))
        target = tmp_path / "layout"
        words = f"type=oci,tar=false,compression={kind},dest={target}"
        build(docker, PLAIN, "-o", words, str(place))
        layout = Layout(target)
        manifest = layout.document(layout.index["manifests"][0])
        assert pushed(registry, remote)["layers"] == manifest["layers"]
        config = json.loads(layout.blob(manifest["config"]))
        for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            blob = layout.blob(layer)
            if kind == "estargz":
                tar, entries = read_estargz(blob, layer["annotations"])
            else:
                tar, entries, _ = read_zstd_chunked(blob, layer["annotations"])
            assert "sha256:" + hashlib.sha256(tar).hexdigest() == diff_id
            assert {"one", "two"} & set(contents(blob, entries))
        # The image in the engine is what was pushed, and starts.
        shown = json.loads(docker("image", "inspect", remote).stdout)[0]
        assert shown["RootFS"]["Layers"] == config["rootfs"]["diff_ids"]
        done = docker("run", "--rm", "--entrypoint", "/one", remote)
        assert "permission denied" in done.stderr  # a file of the image without the x bit
        docker("rmi", "-f", remote)
        assert docker("pull", remote).returncode == 0
        docker("rmi", "-f", remote)


def test_docker_media_types(docker: Docker, place: Path, tmp_path: Path, name: str) -> None:
    with Registry(tmp_path / "registry") as registry:
        remote = f"{registry.name}/{name}"
        output = "type=image,push=true,oci-mediatypes=false"
        build(docker, PLAIN, "-t", remote, "-o", output, "--annotation", "a=b", str(place))
        manifest = pushed(registry, remote)
        assert manifest["mediaType"] == f"{DOCKER}distribution.manifest.v2+json"
        assert manifest["config"]["mediaType"] == f"{DOCKER}container.image.v1+json"
        layers = {layer["mediaType"] for layer in manifest["layers"]}
        assert layers == {f"{DOCKER}image.rootfs.diff.tar.gzip"}
        assert manifest["annotations"] == {"a": "b"}
        docker("rmi", "-f", remote)
    text = refused(docker, "-t", name, "-o", output, str(place))
    assert 'cannot export attestations with "oci-mediatypes=false"' in text


# -- annotations -----------------------------------------------------------------------------------


def test_annotations_of_a_manifest(docker: Docker, place: Path, tmp_path: Path, name: str) -> None:
    words = ("--annotation", "org.example.a=x=1", "--annotation", f"manifest[linux/{HOST}]:b=2")
    descriptor = ("--annotation", "manifest-descriptor:c=3")
    for kind in ("oci", "docker"):
        archive = tmp_path / f"{kind}.tar"
        output = f"type={kind},dest={archive}"
        build(docker, PLAIN, "-t", name, *words, *descriptor, "-o", output, str(place))
        layout = unpack(archive, tmp_path / kind)
        (listed,) = layout.index["manifests"]
        assert listed["annotations"]["c"] == "3"
        assert layout.document(listed)["annotations"] == {"org.example.a": "x=1", "b": "2"}
    with Registry(tmp_path / "registry") as registry:
        remote = f"{registry.name}/{name}"
        build(docker, PLAIN, "-t", remote, *words, "-o", "type=image", str(place))
        docker("push", remote)
        assert pushed(registry, remote)["annotations"] == {"org.example.a": "x=1", "b": "2"}
        # The same image without annotations takes the name.
        build(docker, PLAIN, "-t", remote, str(place))
        docker("push", remote)
        assert "annotations" not in pushed(registry, remote)
        assert docker("run", "--rm", remote, "/x").returncode == 127
        docker("rmi", "-f", remote)


def test_annotations_of_an_index(docker: Docker, place: Path, tmp_path: Path, name: str) -> None:
    words = (
        *("--annotation", "index:a=1"),
        *("--annotation", "manifest:a=1"),
        *("--annotation", "manifest[linux/s390x]:a=2"),
        *("--annotation", "manifest-descriptor[linux/s390x]:d=4"),
        *("--annotation", "index-descriptor:e=5"),
    )
    target = tmp_path / "layout"
    output = f"type=oci,tar=false,dest={target}"
    build(docker, "--platform", BOTH, "-t", name, *words, "-o", output, str(place))
    layout = Layout(target)
    (listed,) = layout.index["manifests"]
    assert listed["annotations"]["e"] == "5"
    index = layout.document(listed)
    assert index["annotations"] == {"a": "1"}
    first, second = index["manifests"][:2]
    assert "annotations" not in first and second["annotations"] == {"d": "4"}
    assert layout.document(first)["annotations"] == {"a": "1"}
    assert layout.document(second)["annotations"] == {"a": "2"}
    with Registry(tmp_path / "registry") as registry:
        remote = f"{registry.name}/{name}"
        build(docker, "--push", "-t", remote, "--annotation", "index:a=1", str(place))
        index = pushed(registry, remote)
        assert index["mediaType"] == INDEX and index["annotations"] == {"a": "1"}
        build(docker, "--push", "-t", remote, str(place))
        assert "annotations" not in pushed(registry, remote)
        docker("rmi", "-f", remote)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("annotation-index.a=b", "index annotations not supported for single platform export"),
        ("annotation-index-descriptor.a=b", "index annotations not supported"),
        ("annotation[linux/mips].a=b", "no platform linux/mips found in source"),
        ("annotation-other.a=b", "unrecognized annotation type other"),
        ("compression=estargz,oci-mediatypes=false", 'compression=estargz" conflicts with'),
        ("compression=lz4", "unsupported compression type"),
        ("compression-level=high", "non-integer value"),
        ("compression=gzip,compression-level=10", "invalid compression level: 10"),
        ("force-compression=maybe", "non-bool value specified for force-compression"),
        ("compression=zstd,oci-mediatypes=false", "conflicts with"),
        ("tar=perhaps", "non-bool value specified for tar"),
    ],
)
def test_values_that_have_no_effect_are_refused_by_name(
    docker: Docker, place: Path, tmp_path: Path, output: str, text: str
) -> None:
    dest = tmp_path / "out.tar"
    shown = refused(docker, PLAIN, "-o", f"type=oci,dest={dest},{output}", str(place))
    assert text in shown
    assert not dest.exists() or not dest.stat().st_size


def test_a_mode_of_files_and_unknown_attributes(
    docker: Docker, place: Path, tmp_path: Path
) -> None:
    words = ("-o", f"type=local,dest={tmp_path / 'out'}")
    build(docker, f"{words[0]}", f"{words[1]},mode=copy,unknown=1", str(place))
    assert (tmp_path / "out" / "one").exists()
    assert "mode=delete" in refused(docker, words[0], f"{words[1]},mode=delete", str(place))
