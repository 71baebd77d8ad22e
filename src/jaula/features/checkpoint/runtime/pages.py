"""Compare the sizes of the files with memory with what their maps say, before CRIU reads them.

A pagemap lists ranges of pages in the order in which they follow each other in a file ``pages``.
CRIU reads that file until it has all of them: at an early end of the file it tries again for ever.
"""

from __future__ import annotations

import os
from typing import BinaryIO, TypeVar

from google.protobuf.message import DecodeError, Message

from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2

_KINDS = ("pagemap", "pagemap-shmem")
_IN_PARENT = 1  # PE_PARENT: the pages are in the images of the round before
_MAX_MESSAGE = 4096  # bytes; CRIU's have some 20
_PAGE = os.sysconf("SC_PAGE_SIZE")

M = TypeVar("M", bound=Message)


def check(directory: int) -> None:
    """Check that every file with memory has all pages of its map; ``directory`` is a descriptor.

    :raises InvalidRequest: when one is shorter or missing, or a map is malformed.
    """
    for name in criu_images.names(directory):
        number, own = criu_images.split_round(name)
        if criu_images.kind_of(own) not in _KINDS:
            continue
        pages_id, needed = _read_map(directory, name, own)
        pages = f"pages-{pages_id}.img"
        if number:
            pages = criu_images.round_name(number, pages)
        if needed and (size := _size(directory, pages)) < needed:
            raise criu_images.invalid(f"{pages} has {size} bytes, and {name} needs {needed}")


def _size(directory: int, name: str) -> int:
    fd = criu_images.open_file(directory, name)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _read_map(directory: int, name: str, own: str) -> tuple[int, int]:
    """Return the number of the file with the pages, and how many bytes of it are read."""
    with open(criu_images.open_file(directory, name), "rb") as file:
        empty = criu_images.encode(own, ())
        if file.read(len(empty)) != empty:
            raise criu_images.invalid(f"{name} is not an image of that kind")
        head = _next(file, name, images_pb2.PagemapHead)
        if head is None:
            raise criu_images.invalid(f"{name} is truncated")
        count = 0
        while (entry := _next(file, name, images_pb2.PagemapEntry)) is not None:
            if not (entry.in_parent or entry.flags & _IN_PARENT):
                has_count = entry.HasField("nr_pages")
                count += entry.nr_pages if has_count else entry.compat_nr_pages
        return head.pages_id, count * _PAGE


def _next(file: BinaryIO, name: str, message: type[M]) -> M | None:
    """Return the next message, None at the end. A map may be long, so it is not read at once."""
    prefix = file.read(4)
    if not prefix:
        return None
    length = int.from_bytes(prefix, "little")
    body = file.read(length) if length <= _MAX_MESSAGE else b""
    if len(prefix) != 4 or len(body) != length:
        raise criu_images.invalid(f"{name} is truncated")
    decoded = message()
    try:
        decoded.MergeFromString(body)
    except DecodeError:
        raise criu_images.invalid(f"{name} has a malformed message") from None
    if not decoded.IsInitialized():
        raise criu_images.invalid(f"{name} has an incomplete message")
    return decoded
