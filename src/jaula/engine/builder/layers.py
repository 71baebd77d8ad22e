"""What a step changed becomes a layer. Synchronous, for threads.

Where the snapshot is an overlay its upper directory is the layer: one tar is written for the image
store, and the directory moves to the other layers. Elsewhere the differences are written as a tar
and unpacked, as for a commit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from jaula.engine.builder.image_state import Layer
from jaula.engine.containers.commit import image_changes
from jaula.spec.image import LAYER_TAR, Descriptor
from jaula.spec.rootfs import OverlayRoot
from jaula.storage.drivers.driver import ChangeKind, open_root
from jaula.storage.layers import commit_layer
from jaula.storage.layers.store import LayerInfo
from jaula.storage.store_dir import opened

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.store.blobs import BlobWriter

Pin = Callable[[str], None]
"""Keeps a layer and its blob from being taken for garbage, until the build has ended."""
_Found = dict[bytes, ChangeKind]


def take(
    parts: Services,
    snapshot: str,
    pin: Pin,
    *,
    newest: int | None = None,
    exact: bool = False,
    mount_points: Collection[str] = (),
) -> Layer | None:
    """The layer of a snapshot that nobody uses any more; None where nothing differs.

    ``newest`` is the latest time that a file gets, in nanoseconds, the time of all where ``exact``.
    ``mount_points`` were made for
    mounts: they are no part of it where they are empty.
    """

    def choose(found: _Found) -> _Found:
        return without(image_changes(found), mount_points)

    source = parts.snapshots.root(snapshot)
    if isinstance(source, OverlayRoot) and source.upper is not None:
        lowers = OverlayRoot(source.lowers, user_xattr=source.user_xattr)
        with opened(source.upper) as upper, open_root(lowers) as below:
            if not commit_layer.prune(upper, below, choose):
                return None
        try:
            return from_directory(parts, source.upper, pin, newest=newest, exact=exact)
        except commit_layer.Redirected:
            pass  # what the directory shows is not all: go by the merged tree
    if newest is not None:
        _age(parts, snapshot, newest, exact=exact)
    with parts.images.blobs.writer() as blob:
        if not parts.snapshots.write_layer(snapshot, choose, blob.write):
            return None
        pin(blob.digest)
        parts.layers.extract_plain(blob.file, blob.digest)
        return _stored(blob)


def from_directory(
    parts: Services, path: str, pin: Pin, *, newest: int | None = None, exact: bool = False
) -> Layer:
    """A directory of the engine's own as a layer; it is gone afterwards."""
    with parts.images.blobs.writer() as blob:
        with opened(path) as directory:
            size = commit_layer.write(directory, blob.write, newest=newest, exact=exact)
        pin(blob.digest)
        parts.layers.adopt(path, LayerInfo(blob.digest, size, blob.size))
        return _stored(blob)


def _stored(blob: BlobWriter) -> Layer:
    blob.commit()
    return Layer(blob.digest, Descriptor(LAYER_TAR, blob.digest, blob.size))


def without(found: _Found, mount_points: Collection[str]) -> _Found:
    """Differences but for mount points that were added and have nothing in them."""
    places = {os.fsencode(path.strip("/")) for path in mount_points}
    for place in tuple(places):
        while b"/" in place:
            place = place.rpartition(b"/")[0]
            places.add(place)
    kept = dict(found)
    for place in sorted(places, key=lambda p: p.count(b"/"), reverse=True):
        if kept.get(place) is not ChangeKind.ADDED:
            continue
        if not any(path.startswith(place + b"/") for path in kept):
            del kept[place]
    return kept


def _age(parts: Services, snapshot: str, newest: int, *, exact: bool) -> None:
    """Give what a step changed no later time than ``newest``, or that one."""
    with open_root(parts.snapshots.root(snapshot)) as root:
        for change in reversed(parts.snapshots.changes(snapshot)):
            if change.kind is ChangeKind.DELETED:
                continue
            folder, name = os.path.split(change.path.lstrip("/"))
            with opened(folder or ".", dir_fd=root) as parent:
                facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if exact or facts.st_mtime_ns > newest:
                    os.utime(name, ns=(newest, newest), dir_fd=parent, follow_symlinks=False)
