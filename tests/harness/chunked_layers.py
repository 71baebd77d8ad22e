"""Readers of eStargz and zstd:chunked layers, which take nothing from the code that writes them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zlib
from typing import Any

from jaula.storage.compression import zstd_module

Entries = list[dict[str, Any]]

_ZSTD = "io.github.containers.zstd-chunked."
_STARGZ_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
_TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.AREGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def skippable(blob: bytes, position: int, length: int) -> bytes:
    """Return the content of the skippable zstd frame whose data begins at a position."""
    assert blob[position - 8 : position] == struct.pack("<II", 0x184D2A50, length)
    return blob[position : position + length]


def read_zstd_chunked(blob: bytes, annotations: dict[str, str]) -> tuple[bytes, Entries, bytes]:
    """Return the tar of a layer, the entries of its TOC, and its tar-split data."""
    zstd = zstd_module()
    footer = struct.unpack("<QQQQQQQ8s", skippable(blob, len(blob) - 64, 64))
    assert footer[7] == b"GNUlInUx" and footer[3] == 1
    position, length, size, kind = map(int, annotations[_ZSTD + "manifest-position"].split(":"))
    assert footer[:4] == (position, length, size, kind)
    toc = skippable(blob, position, length)
    assert annotations[_ZSTD + "manifest-checksum"] == sha256(toc)
    document = zstd.decompress(toc)
    assert len(document) == size
    parsed = json.loads(document)
    assert parsed["version"] == 1
    start, count, plain = map(int, annotations[_ZSTD + "tarsplit-position"].split(":"))
    assert footer[4:7] == (start, count, plain)
    split = skippable(blob, start, count)
    assert parsed["tarSplitDigest"] == sha256(split)
    text = zstd.decompress(split)
    assert len(text) == plain
    return zstd.decompress(blob), parsed["entries"], text


def read_estargz(blob: bytes, annotations: dict[str, str]) -> tuple[bytes, Entries]:
    """Return the tar of a layer, and the entries of its TOC."""
    footer = blob[-51:]
    assert gzip.decompress(footer) == b"" and footer[32:38] == b"STARGZ"
    position = int(footer[16:32], 16)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob[position:]))) as tar:
        (member,) = tar.getmembers()
        assert member.name == "stargz.index.json"
        file = tar.extractfile(member)
        assert file is not None
        document = file.read()
    assert annotations[_STARGZ_DIGEST] == sha256(document)
    tar_bytes = gzip.decompress(blob)
    assert annotations["io.containers.estargz.uncompressed-size"] == str(len(tar_bytes))
    parsed = json.loads(document)
    assert parsed["version"] == 1
    return tar_bytes, parsed["entries"]


def contents(blob: bytes, entries: Entries) -> dict[str, bytes]:
    """Return the content of each regular file, read chunk by chunk from its offset."""
    files: dict[str, bytes] = {}
    for entry in entries:
        if entry["type"] not in ("reg", "chunk"):
            continue
        name = entry["name"]
        if entry["type"] == "reg":
            files[name] = b""
            left = entry.get("size", 0)
        if not left:
            continue
        assert entry.get("chunkOffset", 0) == len(files[name])
        data = _decompress(blob[entry["offset"] :], entry.get("chunkSize") or left)
        assert entry.get("chunkDigest", sha256(data)) == sha256(data)
        assert (entry.get("chunkType") == "zeros") <= (not any(data))
        files[name] += data
        left -= len(data)
    for entry in entries:
        if entry["type"] == "reg":
            assert len(files[entry["name"]]) == entry.get("size", 0)
            if entry.get("digest"):
                assert entry["digest"] == sha256(files[entry["name"]])
            else:
                assert not entry.get("size", 0)
    return files


def _decompress(data: bytes, size: int) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(data, size)
    decompressor = zstd_module().ZstdDecompressor()
    made: bytes = decompressor.decompress(data)
    assert decompressor.eof and len(made) == size  # a chunk is a frame
    return made


def assemble(tar_split: bytes, files: dict[str, bytes]) -> bytes:
    """Return the tar that tar-split data and the contents of files give."""
    out = b""
    for position, line in enumerate(tar_split.splitlines()):
        document = json.loads(line)
        assert document["position"] == position
        if document["type"] == 2:
            out += base64.b64decode(document["payload"])
        elif document.get("size"):
            data = files[document["name"]]
            assert len(data) == document["size"] and len(base64.b64decode(document["payload"])) == 8
            out += data
        else:
            assert document["payload"] is None
    return out


def expected_entries(archive: bytes) -> Entries:
    """Return what a TOC says about the members of a tar, as Python's tarfile reads it."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = member.name + ("/" if member.isdir() else "")
            entry = {
                "type": _TYPES[member.type],
                "name": name,
                "linkName": member.linkname,
                "mode": member.mode,
                "size": member.size if member.isreg() else 0,
                "uid": member.uid,
                "gid": member.gid,
                "devMajor": member.devmajor,
                "devMinor": member.devminor,
                "xattrs": {
                    key.removeprefix("SCHILY.xattr."): base64.b64encode(
                        value.encode("utf-8", "surrogateescape")
                    ).decode()
                    for key, value in member.pax_headers.items()
                    if key.startswith("SCHILY.xattr.")
                },
            }
            found.append({key: value for key, value in entry.items() if value})
    return found


def metadata(entries: Entries) -> Entries:
    """Return the members of a TOC's entries that :func:`expected_entries` has."""
    keys = [
        "type",
        "name",
        "linkName",
        "mode",
        "size",
        "uid",
        "gid",
        "devMajor",
        "devMinor",
        "xattrs",
    ]
    return [
        {key: entry[key] for key in keys if key in entry}
        for entry in entries
        if entry["type"] != "chunk"
    ]
