"""The image that a stage has built so far: its config, its layers and their dates.

:class:`ImageState` is the value after each step. The functions at the end turn the changes of a
step into a layer; they are synchronous and run in threads. If the snapshot is an overlay, its upper
directory is the layer: one tar is written for the image store, and the directory moves to the other
layers. Otherwise the differences are written as a tar and unpacked, as for a commit.

Source of the fixed date: reproducible-builds.org, ``SOURCE_DATE_EPOCH``, as a build argument.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.image_documents import (
    LAYER_TAR,
    Descriptor,
    History,
    ImageConfig,
    ImageDocument,
    Platform,
    RootFS,
)
from jaula.spec.rootfs import OverlayRoot
from jaula.storage.drivers.storage_driver import ChangeKind, open_root
from jaula.storage.layers import commit_layer
from jaula.storage.layers.layer_store import LayerInfo, WrittenTar
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.dockerfile.apply_instructions import Scope
    from jaula.images.store.blobs import BlobWriter

Pin = Callable[[str], None]
"""Protects a layer and its blob from garbage collection until the build ends."""
_Changes = dict[bytes, ChangeKind]

EPOCH = "SOURCE_DATE_EPOCH"
_MAX_DIGITS = 11  # of an epoch in seconds
_SECOND = 1_000_000_000  # nanoseconds


class Layer(msgspec.Struct, frozen=True):
    """A layer: its diff id, and the blob that holds its archive."""

    diff_id: str
    blob: Descriptor


class ImageState(msgspec.Struct, frozen=True, kw_only=True):
    """The image after a step."""

    layers: tuple[Layer, ...] = ()
    config: ImageConfig = ImageConfig()
    history: tuple[History, ...] = ()
    platform: Platform = Platform()
    author: str = ""
    created: str = ""
    command_set: bool = False  # this stage has a CMD of its own
    base_layers: int = 0  # how many layers belong to the base image
    base_history: int = 0

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The diff ids of the layers, base first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def own_history(self) -> tuple[History, ...]:
        """The history of this build's steps."""
        return self.history[self.base_history :]

    def step(
        self,
        text: str,
        created: str,
        layer: Layer | None = None,
        config: ImageConfig | None = None,
        *,
        comment: str = "",
    ) -> ImageState:
        """Return the state after one more step; ``text`` and ``comment`` go into its history."""
        entry = History(
            created=created,
            created_by=text,
            author=self.author,
            comment=comment,
            empty_layer=layer is None,
        )
        return msgspec.structs.replace(
            self,
            layers=self.layers if layer is None else (*self.layers, layer),
            config=self.config if config is None else config,
            history=(*self.history, entry),
            created=created,
        )


class StageResult(msgspec.Struct, frozen=True):
    """The end of a stage: its image, and the variables that a stage based on it inherits."""

    state: ImageState
    scope: Scope


def image_document(state: ImageState, labels: dict[str, str], now: str) -> ImageDocument:
    """Return the image configuration of a state, with further ``labels``. Pure.

    ``now`` is the creation time if no step has one.
    """
    config = msgspec.structs.replace(state.config, labels=state.config.labels | labels)
    platform = state.platform
    return ImageDocument(
        architecture=platform.architecture,
        os=platform.os or "linux",
        variant=platform.variant,
        created=state.created or now,
        author=state.author,
        config=config,
        rootfs=RootFS(diff_ids=state.diff_ids),
        history=(*state.history[: state.base_history], *_dated(state.own_history, now)),
    )


def _dated(history: tuple[History, ...], now: str) -> tuple[History, ...]:
    """Return a history in which each step without a date has that of the next step. Pure.

    An ARG at the start of a stage has none: it is no step of the cache, which keeps dates.
    """
    dated = []
    for step in reversed(history):
        now = step.created or now
        dated.append(msgspec.structs.replace(step, created=now))
    return tuple(reversed(dated))


# -- dates -------------------------------------------------------------------------------------


class SourceDateEpoch:
    """The date of a build's image: now, or the one that its build argument fixes.

    ``epoch`` is the fixed date in seconds since 1970, None without one.

    :raises InvalidRequest: when the build argument is not a number of seconds.
    """

    def __init__(self, arguments: Mapping[str, str | None]) -> None:
        text = arguments.get(EPOCH)
        if text and not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
            raise InvalidRequest(f"{EPOCH} {text[:40]!r} is not a number of seconds since 1970")
        self.epoch = int(text) if text else None

    @property
    def newest(self) -> int | None:
        """The latest modification time of a file, in nanoseconds; None without a fixed date."""
        return None if self.epoch is None else self.epoch * _SECOND

    def now(self) -> str:
        """Return the date of a step that is made now, for the history."""
        if self.epoch is not None:
            return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        now = datetime.fromtimestamp(time.time(), UTC)
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def date_of(self, created: str) -> str:
        """Return the date of a cached step, which was made at ``created``."""
        return created if self.epoch is None else self.now()


# -- layers ------------------------------------------------------------------------------------


def layer_of_snapshot(
    services: Services,
    snapshot: str,
    pin: Pin,
    *,
    newest: int | None = None,
    exact: bool = False,
    mount_points: Collection[str] = (),
) -> Layer | None:
    """Turn the changes in an unused snapshot into a layer; return None if nothing changed.

    ``newest`` limits the modification times of files, in nanoseconds; with ``exact`` every file
    gets it. ``mount_points`` were created for mounts: empty ones are left out of the layer.
    """

    def select(changes: _Changes) -> _Changes:
        return without_mount_points(changes, mount_points)

    source = services.snapshots.root(snapshot)
    if isinstance(source, OverlayRoot) and source.upper is not None:
        lowers = OverlayRoot(source.lowers, user_xattr=source.user_xattr)
        with open_directory(source.upper) as upper, open_root(lowers) as below:
            if not commit_layer.prune_unchanged(upper, below, select):
                return None
        try:
            return layer_of_directory(services, source.upper, pin, newest=newest, exact=exact)
        except commit_layer.Redirected:
            pass  # the upper directory alone is incomplete: compare the merged tree
    if newest is not None:
        _clamp_times(services, snapshot, newest, exact=exact)
    with services.images.blobs.writer() as blob:
        if not services.snapshots.write_layer(snapshot, select, blob.write):
            return None
        pin(blob.digest)
        services.layers.extract_own(WrittenTar(blob.file, blob.digest))
        return _commit(blob)


def layer_of_directory(
    services: Services, path: str, pin: Pin, *, newest: int | None = None, exact: bool = False
) -> Layer:
    """Turn a directory of the engine into a layer. The directory moves into the layer store."""
    with services.images.blobs.writer() as blob:
        with open_directory(path) as directory:
            size = commit_layer.write_upper(directory, blob.write, newest=newest, exact=exact)
        pin(blob.digest)
        services.layers.adopt(path, LayerInfo(blob.digest, size, blob.size))
        return _commit(blob)


def _commit(blob: BlobWriter) -> Layer:
    blob.commit()
    return Layer(blob.digest, Descriptor(LAYER_TAR, blob.digest, blob.size))


def without_mount_points(changes: _Changes, mount_points: Collection[str]) -> _Changes:
    """Return the changes without mount points that were added and are empty. Pure."""
    paths = {os.fsencode(path.strip("/")) for path in mount_points}
    for path in tuple(paths):
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            paths.add(path)
    kept = dict(changes)
    for path in sorted(paths, key=lambda p: p.count(b"/"), reverse=True):
        if kept.get(path) is not ChangeKind.ADDED:
            continue
        if not any(other.startswith(path + b"/") for other in kept):
            del kept[path]
    return kept


def _clamp_times(services: Services, snapshot: str, newest: int, *, exact: bool) -> None:
    """Limit the modification times of changed files to ``newest``; with ``exact`` set them."""
    with open_root(services.snapshots.root(snapshot)) as root:
        for change in reversed(services.snapshots.changes(snapshot)):
            if change.kind is ChangeKind.DELETED:
                continue
            folder, name = os.path.split(change.path.lstrip("/"))
            with open_directory(folder or ".", dir_fd=root) as parent:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if exact or status.st_mtime_ns > newest:
                    os.utime(name, ns=(newest, newest), dir_fd=parent, follow_symlinks=False)
