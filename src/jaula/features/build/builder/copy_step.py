"""COPY, ADD and the directory of a WORKDIR: files that become a layer.

:mod:`jaula.features.build.files.copy_files` decides which files are copied. This module opens
the trees that they come from, makes the writable directory that they are copied into, and turns it
into a layer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import user_lookup
from jaula.engine.model import container_store
from jaula.errors import InvalidRequest
from jaula.features.build.builder.image_state import layer_of_directory, layer_of_snapshot
from jaula.kernel import openat2
from jaula.spec.rootfs import OverlayRoot
from jaula.storage.drivers.storage_driver import open_root
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.model.services import Services
    from jaula.features.build.builder.image_state import Layer, Pin

Fill = Callable[[int], object]
"""Writes into a root directory, which it gets as a descriptor."""


@contextmanager
def open_layers(services: Services, diff_ids: Sequence[str]) -> Iterator[int]:
    """Open the root of a stack of layers for reading; without layers an empty directory."""
    if diff_ids:
        with open_root(services.snapshots.view(diff_ids)) as root:
            yield root
        return
    with temporary_root(services) as path, open_directory(path) as root:
        yield root


def make_layer(
    services: Services,
    diff_ids: Sequence[str],
    fill: Fill,
    pin: Pin,
    *,
    newest: int | None = None,
    exact: bool = False,
) -> Layer | None:
    """Return the layer of what ``fill`` writes on top of other layers; None if nothing changed.

    Without ``diff_ids`` the layer is independent of any other. ``newest`` and ``exact`` are those
    of :func:`~.image_state.layer_of_snapshot`.
    """
    if not diff_ids:
        with temporary_root(services) as path:
            with open_directory(path) as root:
                fill(root)
            if not os.listdir(path):
                return None
            return layer_of_directory(services, path, pin, newest=newest, exact=exact)
    snapshot = container_store.new_id()
    try:
        services.snapshots.create(snapshot, diff_ids)
        source = services.snapshots.root(snapshot)
        if isinstance(source, OverlayRoot):
            source = msgspec.structs.replace(source, volatile=True)
        with open_root(source) as root:
            fill(root)
        return layer_of_snapshot(services, snapshot, pin, newest=newest, exact=exact)
    finally:
        _remove(services, snapshot)


def make_directory(path: str, owner: tuple[int, int]) -> Fill:
    """Return the function that creates the missing directory of a WORKDIR."""

    def fill(root: int) -> None:
        os.close(openat2.make_directory_in_root(root, path, made=chown))

    def chown(descriptor: int) -> None:
        if owner != (0, 0):
            os.chown(f"/proc/self/fd/{descriptor}", *owner)

    return fill


def is_directory(root: int, path: str) -> bool:
    """Return whether the directory exists.

    :raises InvalidRequest: when the path is another kind of file.
    """
    try:
        os.close(openat2.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidRequest(
            f"{path!r} cannot be the working directory: {error.strerror}"
        ) from None
    return True


def resolve_owner(services: Services, diff_ids: Sequence[str], text: str) -> tuple[int, int]:
    """Return the ids of ``user[:group]``; names are looked up in the files of a stack of layers.

    Without a group it is the primary group of the user; for a numeric user it is the same number.

    :raises InvalidRequest: when an id is too large or a name is not known.
    """
    user, colon, group = text.partition(":")
    if user.isdigit() and (group.isdigit() or not colon) and text.isascii():
        ids = int(user[:11]), int((group if colon else user)[:11])
        if max(ids) > user_lookup.MAX_ID:
            raise InvalidRequest(
                f"invalid --chown {text[:64]!r}: an id must not be above {user_lookup.MAX_ID}"
            )
        return ids
    with open_layers(services, diff_ids) as root:
        entry = user_lookup.resolve_user(root, text, ())
    return entry.uid, entry.gid if colon or not user.isdigit() else entry.uid


@contextmanager
def temporary_root(services: Services) -> Iterator[str]:
    """Create an empty root directory for the block. The next engine removes one that is left."""
    snapshot = container_store.new_id()
    top = services.config.paths.container(snapshot)
    top.mkdir(mode=0o700)
    root = top / "upper"
    root.mkdir(mode=0o755)
    try:
        yield str(root)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _remove(services: Services, snapshot: str) -> None:
    services.snapshots.remove(snapshot)
    shutil.rmtree(services.config.paths.container(snapshot), ignore_errors=True)
