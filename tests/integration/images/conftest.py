"""An image store below ``tmp_path``, and hand-made archives for it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness import loop_mount
from harness.index_layouts import index_layout
from jaula.config import Paths
from jaula.images.archive.load_archive import load
from jaula.images.store.image_store import ImageStore
from jaula.storage.layers.layer_store import LayerStore

Files = dict[str, bytes]


def pack(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a tar of regular files, then of symbolic links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob(data: bytes) -> str:
    return "blobs/" + digest(data).replace(":", "/")


def config(*layers: bytes, **more: object) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [{"created_by": f"step {n}"} for n in range(len(layers))],
    }
    return json.dumps(document | more).encode()


class Maker:
    """Archives in both formats, with layers that are plain tars."""

    pack = staticmethod(pack)
    digest = staticmethod(digest)
    blob = staticmethod(blob)
    config = staticmethod(config)

    @staticmethod
    def layer(text: str) -> bytes:
        return pack({"etc/note": text.encode()})

    @staticmethod
    def docker(*layers: bytes, names: tuple[str, ...] = ("app:1",), **more: object) -> Files:
        document = config(*layers, **more)
        files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers)}
        listed = {"Config": "c.json", "RepoTags": names, "Layers": list(files)}
        return files | {"c.json": document, "manifest.json": json.dumps([listed]).encode()}

    @staticmethod
    def oci(
        *layers: bytes,
        name: str | None = "app:1",
        diff_ids: tuple[bytes, ...] | None = None,
        media_type: str = "application/vnd.oci.image.layer.v1.tar",
        annotations: dict[str, str] | None = None,
    ) -> Files:
        document = config(*(diff_ids or layers))
        stated = {"annotations": annotations} if annotations else {}
        manifest = stated | {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(document),
                "size": len(document),
            },
            "layers": [
                {"mediaType": media_type, "digest": digest(layer), "size": len(layer)}
                for layer in layers
            ],
        }
        data = json.dumps(manifest).encode()
        descriptor: dict[str, object] = {
            "mediaType": manifest["mediaType"],
            "digest": digest(data),
            "size": len(data),
        }
        if name is not None:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        index = {"schemaVersion": 2, "manifests": [descriptor]}
        files = {blob(data): data, blob(document): document}
        files |= {blob(layer): layer for layer in layers}
        return files | {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(index).encode(),
        }

    @staticmethod
    def index(*platforms: str, name: str | None = "multi:1", omit: tuple[str, ...] = ()) -> Files:
        """Return an OCI layout that names an index. The layer of a platform has its name."""
        layers = {platform: Maker.layer(platform) for platform in (*platforms, *omit)}
        return index_layout(layers, name, omit)


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def on_btrfs(tmp_path: Path) -> Iterator[Path]:
    """Return an empty btrfs file system."""
    with loop_mount.mounted(tmp_path, "mkfs.btrfs", "-q") as top:
        yield top


@pytest.fixture
def store(paths: Paths) -> ImageStore:
    return ImageStore(paths, LayerStore(paths))


@pytest.fixture
def loaded(store: ImageStore) -> Callable[[bytes], list[str]]:
    """Load an archive and return the names of the loaded images."""

    def run(data: bytes) -> list[str]:
        return [str(m["stream"]).strip() for m in load(store, io.BytesIO(data), quiet=True)]

    return run
