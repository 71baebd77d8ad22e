"""Read the files that a container has changed by docker's API, as the tar of a layer.

This is for storage drivers whose directories are not read: those other than ``overlay2``, and the
image store of containerd. The list of changes has each path. The archive of a path has the files
below it too, so a new directory is one request.

Facts about the API: an archive shows what is mounted in the container, so nothing is read below a
mount point but the directory itself. Owners are ids inside the container.

Sources: Docker Engine API 1.45, ``ContainerChanges`` and ``ContainerArchive``; OCI image-spec,
``layer.md``, for whiteouts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from jaula.errors import NotFound
from jaula.spec.decode import Document
from jaula.storage.tar.tar_entry import DIRECTORY, HARD_LINK
from jaula.storage.tar.tar_reader import TarReader
from jaula.storage.tar.tar_writer import TarWriter, new_entry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from jaula.features.migrate_from.source_api import SourceApi
    from jaula.storage.tar.tar_writer import Sink

_ADDED, _DELETED = 1, 2
_WHITEOUT = ".wh."


class ChangedPath(Document, frozen=True, kw_only=True):
    """A path of the container that differs from its image. ``kind`` 0 is a modified one."""

    path: str = ""
    kind: int = 0


class Step(NamedTuple):
    """A path to write: a whiteout, one entry, or a whole ``tree``."""

    path: str
    is_whiteout: bool = False
    is_tree: bool = False


def write_changes(api: SourceApi, id: str, mount_points: Collection[str], sink: Sink) -> None:
    """Write the changes of a container.

    :raises Unavailable: when docker does not give them.
    :raises InvalidRequest: when an answer is not valid.
    """
    writer = TarWriter(sink, nanoseconds=True)
    changed = api.get(f"/containers/{id}/changes", tuple[ChangedPath, ...])
    for step in steps(changed, mount_points):
        if step.is_whiteout:
            parent, name = os.path.split(step.path)
            writer.add(new_entry(_relative(f"{parent}/{_WHITEOUT}{name}"), mode=0))
        else:
            _copy(api, id, step, writer)
    writer.finish()


def steps(changed: Sequence[ChangedPath], mount_points: Collection[str]) -> list[Step]:
    """Return what to write, parents first. Pure.

    A new directory is one step with all that is below it, unless a mount point is.
    """
    points = {os.path.normpath(point) for point in mount_points}
    result: list[Step] = []
    tree = ""
    for change in sorted(changed, key=lambda each: each.path.split("/")):
        path = os.path.normpath(change.path)
        if not path.startswith("/") or path.strip("/") == "":
            continue
        if tree and path.startswith(f"{tree}/"):
            continue
        if any(path.startswith(f"{point}/") for point in points):
            continue
        is_tree = (
            change.kind == _ADDED
            and path not in points
            and not any(point.startswith(f"{path}/") for point in points)
        )
        tree = path if is_tree else ""
        result.append(Step(path=path, is_whiteout=change.kind == _DELETED, is_tree=is_tree))
    return result


def _copy(api: SourceApi, id: str, step: Step, writer: TarWriter) -> None:
    """Copy a path from the container's archive of it. A path that is gone meanwhile is left out."""
    prefix = _relative(os.path.dirname(step.path))
    prefix += b"/" if prefix else b""
    chunks = api.stream(f"/containers/{id}/archive", (("path", step.path),))
    try:
        reader = TarReader(_Chunks(chunks))
        for entry in reader:
            entry.name = prefix + entry.name.lstrip(b"/")
            if entry.type == HARD_LINK:
                entry.link = prefix + entry.link.lstrip(b"/")
            writer.add(entry, reader.data())
            if entry.type == DIRECTORY and not step.is_tree:
                return
    except NotFound:
        return
    finally:
        chunks.close()


def _relative(path: str) -> bytes:
    return os.fsencode(path.strip("/"))


class _Chunks:
    """A readable stream of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
