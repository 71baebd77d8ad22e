"""A data directory of docker, written without docker: images, volumes, networks, containers.

It has what :mod:`jaula.features.migrate_from.docker_root` reads, in moby's form. So a test can also
write what a docker would never write.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.images import Entry, archive

PAGE = 4096  # bytes of a page of BoltDB


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class DockerRoot:
    """The directory at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("image/overlay2/layerdb/sha256", "volumes", "containers", "overlay2"):
            (path / name).mkdir(parents=True)
        (path / "image/overlay2/imagedb/content/sha256").mkdir(parents=True)
        (path / "engine-id").write_text("11111111-2222-3333-4444-555555555555")
        self._repositories: dict[str, dict[str, str]] = {}
        self._networks: list[dict[str, Any]] = []
        self._labels: dict[str, dict[str, str]] = {}

    def image(self, name: str, *layers: Sequence[Entry], **config: Any) -> str:
        """Add an image and return its id."""
        tars = [archive(entries) for entries in layers]
        diff_ids = [f"sha256:{digest(tar)}" for tar in tars]
        document = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2026-01-02T03:04:05Z",
                "config": {"Cmd": ["sh"], **config},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        ).encode()
        chain = ""
        for tar, diff_id in zip(tars, diff_ids, strict=True):
            chain = f"sha256:{digest(f'{chain} {diff_id}'.encode())}" if chain else diff_id
            self._layer(chain.removeprefix("sha256:"), tar, diff_id)
        id = f"sha256:{digest(document)}"
        self.config_file(id).write_bytes(document)
        self._repositories.setdefault(name.partition(":")[0], {})[name] = id
        repositories = json.dumps({"Repositories": self._repositories})
        (self.path / "image/overlay2/repositories.json").write_text(repositories)
        return id

    def config_file(self, id: str) -> Path:
        """Return the file with an image's configuration."""
        return self.path / "image/overlay2/imagedb/content/sha256" / id.removeprefix("sha256:")

    def _layer(self, chain: str, tar: bytes, diff_id: str) -> None:
        place = self.path / "image/overlay2/layerdb/sha256" / chain
        if place.exists():
            return
        place.mkdir()
        cache_id = digest(chain.encode())
        files = self.path / "overlay2" / cache_id / "diff"
        files.mkdir(parents=True)
        (place / "cache-id").write_text(cache_id)
        (place / "diff").write_text(diff_id)
        (place / "size").write_text(str(len(tar)))
        (place / "tar-split.json.gz").write_bytes(gzip.compress(tar_split(tar)))
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            members.extractall(files, filter="fully_trusted")

    def layer_files(self, id: str, index: int = -1) -> Path:
        """Return the directory with the files of one layer of an image."""
        diff_ids = json.loads(self.config_file(id).read_bytes())["rootfs"]["diff_ids"]
        place = self.path / "image/overlay2/layerdb/sha256"
        layer = next(p for p in place.iterdir() if (p / "diff").read_text() == diff_ids[index])
        return self.path / "overlay2" / (layer / "cache-id").read_text() / "diff"

    def volume(self, name: str, labels: dict[str, str] | None = None) -> Path:
        """Add a volume and return the directory of its files."""
        data = self.path / "volumes" / name / "_data"
        data.mkdir(parents=True)
        self._labels[name] = labels or {}
        items = [
            (0, name.encode(), json.dumps({"Name": name, "Labels": labels}).encode())
            for name, labels in sorted(self._labels.items())
        ]
        (self.path / "volumes/metadata.db").write_bytes(bolt(b"volumes", items))
        return data

    def network(self, name: str, subnet: str, **labels: str) -> str:
        """Add a bridge network and return its id."""
        id = digest(name.encode())
        pool = json.dumps([{"PreferredPool": subnet, "SubPool": "", "Gateway": ""}])
        self._networks.append(
            {
                "id": id,
                "name": name,
                "networkType": "bridge",
                "scope": "local",
                "ipamType": "default",
                "ipamV4Config": pool,
                "labels": labels,
                "generic": {"com.docker.network.generic": {}},
            }
        )
        items = [
            (
                0,
                f"docker/network/v1.0/network/{each['id']}/".encode(),
                struct.pack("<Q", 1) + json.dumps(each).encode(),
            )
            for each in sorted(self._networks, key=lambda each: str(each["id"]))
        ]
        (self.path / "network/files").mkdir(parents=True, exist_ok=True)
        (self.path / "network/files/local-kv.db").write_bytes(bolt(b"libnetwork", items))
        return id

    def container(
        self,
        name: str,
        image: str,
        *,
        host: dict[str, Any] | None = None,
        volumes: dict[str, str] | None = None,
        networks: dict[str, Any] | None = None,
        **config: Any,
    ) -> Path:
        """Add a container that has exited and return the directory of its own files.

        ``volumes`` are names by target.
        """
        id = digest(name.encode())
        place = self.path / "containers" / id
        place.mkdir()
        binds = [f"{volume}:{target}" for target, volume in (volumes or {}).items()]
        points = {
            target: {"Type": "volume", "Name": volume, "Destination": target, "RW": True}
            for target, volume in (volumes or {}).items()
        }
        document = {
            "ID": id,
            "Name": f"/{name}",
            "Created": "2026-01-02T03:04:05.678901234Z",
            "Image": image,
            "State": {"Running": False},
            "HasBeenStartedBefore": True,
            "Config": {"Image": image, "Cmd": ["sleep", "60"], **config},
            "NetworkSettings": {"Networks": networks or {}},
            "MountPoints": points,
        }
        (place / "config.v2.json").write_text(json.dumps(document))
        mode = next(iter(networks), "none") if networks else "none"
        body = {"Binds": binds, "NetworkMode": mode, **(host or {})}
        (place / "hostconfig.json").write_text(json.dumps(body))
        mount = digest(id.encode())
        mounts = self.path / "image/overlay2/layerdb/mounts" / id
        mounts.mkdir(parents=True)
        (mounts / "mount-id").write_text(mount)
        upper = self.path / "overlay2" / mount / "diff"
        upper.mkdir(parents=True)
        return upper

    def listing(self) -> str:
        """Return :func:`listing` of the directory."""
        return listing(self.path)


def listing(path: Path) -> str:
    """Return all that can be seen of a directory, except times of access."""
    rows = []
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            each = Path(directory, name)
            status = each.lstat()
            content = ""
            if each.is_symlink():  # docker's etc/mtab leads to the mounts of the host
                content = str(each.readlink())
            elif each.is_file():
                content = digest(each.read_bytes())
            rows.append(
                f"{each} {status.st_mode} {status.st_uid} {status.st_gid} {status.st_mtime_ns}"
                f" {status.st_ctime_ns} {status.st_nlink} {status.st_ino} {content}"
            )
    return "\n".join(sorted(rows))


def tar_split(tar: bytes) -> bytes:
    """Return the tar-split data of a tar."""
    lines: list[dict[str, Any]] = []
    position = 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        for member in members:
            head = tar[position : member.offset_data]
            lines.append({"type": 2, "payload": base64.b64encode(head).decode()})
            size = member.size if member.isreg() else 0
            lines.append({"type": 1, "name": member.name, "size": size, "payload": "AAAAAAAAAAA="})
            position = member.offset_data + size
    lines.append({"type": 2, "payload": base64.b64encode(tar[position:]).decode()})
    return b"".join(
        json.dumps(line | {"position": n}).encode() + b"\n" for n, line in enumerate(lines)
    )


def bolt(bucket: bytes, items: Sequence[tuple[int, bytes, bytes]]) -> bytes:
    """Return a file of BoltDB with one bucket, each page large enough for all items."""
    pages = [_meta(0), _meta(1), _leaf(2, [(1, bucket, struct.pack("<QQ", 3, 0))]), _leaf(3, items)]
    return b"".join(page.ljust(PAGE, b"\0") for page in pages[:3]) + pages[3]


def _meta(page: int) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, 2, 0, 9, 9, page)
    value = 0xCBF29CE484222325
    for byte in body:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return struct.pack("<QHHI", page, 4, 0, 0) + body + struct.pack("<Q", value)


def _leaf(page: int, items: Sequence[tuple[int, bytes, bytes]]) -> bytes:
    head, table, data = struct.pack("<QHHI", page, 2, len(items), 0), b"", b""
    for index, (flags, key, value) in enumerate(items):
        offset = (len(items) - index) * 16 + len(data)
        table += struct.pack("<IIII", flags, offset, len(key), len(value))
        data += key + value
    return head + table + data
