"""Make an image archive in the format of ``docker save`` from files of a source.

A layer on the disk is a directory and tar-split data (vbatts/tar-split, ``tar/storage/entry.go``):
a JSON document for each segment of the tar that is not content, and one for each file with its
size. Together they give the tar again, byte for byte. jaula compares the digest of each layer with
the image's diff id when it loads the archive, so damaged or changed files are found.

moby and containers/storage write the same form.
"""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.migrate_from.inventory import SourceImage
from jaula.features.migrate_from.source_api import printable
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.storage.tar.tar_writer import Sink, TarWriter, new_entry

_FILE, _SEGMENT = 1, 2
_LINE_LIMIT = 16 << 20  # bytes of one document
_CHUNK = 1 << 20  # bytes
_RESOLVE = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS


class _Entry(msgspec.Struct):
    type: int = 0
    name: str = ""
    name_raw: str = ""  # base64 of a name that is not UTF-8
    size: int = 0
    payload: str | None = None


_decoder = msgspec.json.Decoder(_Entry)


class LayerFiles(NamedTuple):
    """The sources of one layer: functions that open its tar-split data (gzip) and its directory."""

    split: Callable[[], BinaryIO]
    directory: Callable[[], AbstractContextManager[int]]


def write_archive(
    images: Sequence[SourceImage],
    config: Callable[[SourceImage], bytes],
    layer: Callable[[str, SourceImage], LayerFiles],
    sink: Sink,
) -> None:
    """Write ``manifest.json``, and each configuration and layer once.

    ``config`` returns the bytes of an image's configuration, ``layer`` the files of a diff id.

    :raises InvalidRequest: when the data of a layer is not valid.
    """
    tar = TarWriter(sink)
    manifest = [
        {
            "Config": f"{image.id.removeprefix('sha256:')}.json",
            "RepoTags": list(image.tags),
            "Layers": [_file_name(diff_id) for diff_id in image.layers],
        }
        for image in images
    ]
    data = msgspec.json.encode(manifest)
    tar.add(new_entry("manifest.json", size=len(data)), (data,))
    for image in images:
        data = config(image)
        tar.add(new_entry(f"{image.id.removeprefix('sha256:')}.json", size=len(data)), (data,))
    written = set[str]()
    for image in images:
        for diff_id in image.layers:
            if diff_id not in written:
                written.add(diff_id)
                _write_layer(tar, diff_id, layer(diff_id, image))
    tar.finish()


def _file_name(diff_id: str) -> str:
    return f"{diff_id.removeprefix('sha256:')}.tar"


def _write_layer(tar: TarWriter, diff_id: str, files: LayerFiles) -> None:
    try:
        with files.split() as split:
            size = sum(_length(entry) for entry in entries(split))
        with files.split() as split, files.directory() as directory:
            tar.add(new_entry(_file_name(diff_id), size=size), _content(split, directory))
    except (zlib.error, binascii.Error, ValueError, OSError) as error:
        raise InvalidRequest(f"layer {diff_id} of the source cannot be read: {error}") from error


def _length(entry: _Entry) -> int:
    if entry.type == _SEGMENT:
        return len(base64.b64decode(entry.payload or "", validate=True))
    return max(entry.size, 0)


def _content(split: BinaryIO, directory: int) -> Iterator[bytes]:
    for entry in entries(split):
        if entry.type == _SEGMENT:
            yield base64.b64decode(entry.payload or "")
        elif entry.size > 0:
            yield from _file(directory, entry)


def _file(directory: int, entry: _Entry) -> Iterator[bytes]:
    """Yield exactly ``entry.size`` bytes of a file of the layer."""
    name = base64.b64decode(entry.name_raw) if entry.name_raw else entry.name.encode()
    path = name.strip(b"/")
    fd = openat2(directory, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=_RESOLVE)
    try:
        left = entry.size
        while left:
            chunk = os.read(fd, min(left, _CHUNK))
            if not chunk:
                raise ValueError(f"the file {printable(os.fsdecode(path))} is too short")
            left -= len(chunk)
            yield chunk
    finally:
        os.close(fd)


def entries(file: BinaryIO) -> Iterator[_Entry]:
    """Yield the documents of tar-split data that is compressed with gzip.

    :raises ValueError: when it is not valid.
    """
    inflate = zlib.decompressobj(wbits=31)
    rest = b""
    while chunk := file.read(1 << 16):
        data = inflate.decompress(chunk, _LINE_LIMIT)
        while data or inflate.unconsumed_tail:
            rest += data
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if line:
                    yield _decoder.decode(line)
            if len(rest) > _LINE_LIMIT:
                raise ValueError("a line of the tar-split data is too long")
            data = inflate.decompress(inflate.unconsumed_tail, _LINE_LIMIT)
    if rest.strip():
        yield _decoder.decode(rest)
