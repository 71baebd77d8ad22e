"""Layers with a table of contents, eStargz and zstd:chunked, written from a plain tar."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from jaula.storage.compression import zstd_module

if TYPE_CHECKING:
    from harness.registry import Registry

_TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


class IndexedLayer(NamedTuple):
    """A blob with the descriptor that a manifest has of it."""

    blob: bytes
    diff_id: str
    media_type: str
    annotations: dict[str, str]
    entries: list[dict[str, Any]]

    @property
    def descriptor(self) -> dict[str, Any]:
        return {
            "mediaType": self.media_type,
            "digest": sha256(self.blob),
            "size": len(self.blob),
            "annotations": self.annotations,
        }


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def gzip_member(data: bytes, level: int = 1, extra: bytes = b"") -> bytes:
    head = b"\x1f\x8b\x08" + (b"\x04" if extra else b"\0") + b"\0\0\0\0\0\xff"
    if extra:
        head += struct.pack("<H", len(extra)) + extra
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = compressor.compress(data) + compressor.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


def _split(
    tar: bytes, chunk_size: int, compress: Callable[[bytes], bytes]
) -> tuple[bytearray, list[dict[str, Any]], int]:
    """Return the compressed parts, the entries, and the end of the last entry in the tar."""
    blob, entries, position = bytearray(), [], 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            modtime = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(member.mtime))
            entry: dict[str, Any] = {
                "name": member.name + ("/" if member.isdir() else ""),
                "type": _TYPES[member.type],
                "modtime": modtime,
                "mode": member.mode,
                "uid": member.uid,
                "gid": member.gid,
            }
            if member.linkname:
                entry["linkName"] = member.linkname
            if member.ischr() or member.isblk():
                entry |= {"devMajor": member.devmajor, "devMinor": member.devminor}
            attributes = {
                key.removeprefix("SCHILY.xattr."): base64.b64encode(
                    value.encode("utf-8", "surrogateescape")
                ).decode()
                for key, value in member.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            if attributes:
                entry["xattrs"] = attributes
            entries.append(entry)
            if not member.isreg() or not member.size:
                continue
            blob += compress(tar[position : member.offset_data])
            data = tar[member.offset_data : member.offset_data + member.size]
            position = member.offset_data + member.size
            entry |= {"size": member.size, "digest": sha256(data)}
            for start in range(0, len(data), chunk_size):
                part = data[start : start + chunk_size]
                chunk = {"offset": len(blob), "chunkDigest": sha256(part)}
                if len(data) > chunk_size:
                    chunk |= {"chunkOffset": start, "chunkSize": len(part)}
                if start:
                    chunk |= {"name": entry["name"], "type": "chunk"}
                    entries.append(chunk)
                else:
                    entry |= chunk
                blob += compress(part)
                if "endOffset" in entry or start + chunk_size >= len(data):
                    chunk["endOffset"] = len(blob)
    return blob, entries, position


def _without(entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != key} for entry in entries]


def estargz(
    tar: bytes,
    *,
    chunk_size: int = 4 << 20,
    edit: Callable[[list[dict[str, Any]]], None] = lambda entries: None,
) -> IndexedLayer:
    """Return an eStargz layer. ``edit`` may change the entries of its TOC."""
    blob, entries, position = _split(tar, chunk_size, gzip_member)
    entries = _without(entries, "endOffset")
    edit(entries)
    end = _end(tar)
    rest = tar[position:end]
    if rest:
        blob += gzip_member(rest)
    document = json.dumps({"version": 1, "entries": entries}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("stargz.index.json")
        info.size = len(document)
        archive.addfile(info, io.BytesIO(document))
    offset = len(blob)
    blob += gzip_member(out.getvalue())
    blob += gzip_member(b"", 0, b"SG\x16\x00%016xSTARGZ" % offset)
    annotations = {"containerd.io/snapshot/stargz/toc.digest": sha256(document)}
    diff_id = sha256(tar[:end] + out.getvalue())
    return IndexedLayer(bytes(blob), diff_id, LAYER_GZIP, annotations, entries)


def zstd_chunked(
    tar: bytes,
    *,
    chunk_size: int = 1 << 20,
    edit: Callable[[list[dict[str, Any]]], None] = lambda entries: None,
) -> IndexedLayer:
    """Return a zstd:chunked layer. ``edit`` may change the entries of its TOC."""
    compress = zstd_module().compress
    blob, entries, position = _split(tar, chunk_size, compress)
    edit(entries)
    blob += compress(tar[position:])
    document = json.dumps({"version": 1, "entries": entries}).encode()
    compressed = compress(document)
    offset = len(blob) + 8
    blob += _skippable(compressed)
    footer = struct.pack("<7Q", offset, len(compressed), len(document), 1, 0, 0, 0)
    blob += _skippable(footer + b"GNUlInUx")
    prefix = "io.github.containers.zstd-chunked.manifest-"
    annotations = {
        prefix + "checksum": sha256(compressed),
        prefix + "position": f"{offset}:{len(compressed)}:{len(document)}:1",
    }
    return IndexedLayer(bytes(blob), sha256(tar), LAYER_ZSTD, annotations, entries)


def _skippable(data: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(data)) + data


def _end(tar: bytes) -> int:
    """Return the end of the last entry, where the TOC's entry can follow."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
    if not members:
        return 0
    last = members[-1]
    size = last.size if last.isreg() else 0
    return last.offset_data + (size + 511) // 512 * 512


def push_image(registry: Registry, name: str, *layers: IndexedLayer, **config: Any) -> str:
    """Push an image of ``layers`` as ``name:1``; return its reference."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    data = json.dumps(document).encode()
    for blob in (data, *(layer.blob for layer in layers)):
        path = f"/v2/{name}/blobs"
        status, headers, body = registry.ask("POST", f"{path}/uploads/")
        assert status == 202, body
        location = urlsplit(headers["location"])
        query = f"{location.query}&digest={sha256(blob)}"
        octets = {"Content-Type": "application/octet-stream"}
        status, _, body = registry.ask("PUT", f"{location.path}?{query}", blob, octets)
        assert status == 201, body
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": sha256(data), "size": len(data)},
        "layers": [layer.descriptor for layer in layers],
    }
    body = json.dumps(manifest).encode()
    status, _, answer = registry.ask(
        "PUT", f"/v2/{name}/manifests/1", body, {"Content-Type": _MANIFEST}
    )
    assert status == 201, answer
    return f"{registry.name}/{name}:1"
