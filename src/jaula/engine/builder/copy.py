"""COPY, ADD and the directory of a WORKDIR: files of elsewhere become a layer.

What is taken and where it lands is :mod:`jaula.images.build.copy`'s. Here is which trees there
are, the writable directory that it is copied into, and the layer that this becomes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.builder import layers
from jaula.engine.containers.user_lookup import MAX_ID, resolve_user
from jaula.engine.model.container_store import new_id
from jaula.errors import InvalidRequest
from jaula.kernel import paths
from jaula.spec.rootfs import OverlayRoot
from jaula.storage.drivers.driver import open_root
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.builder.image_state import Layer
    from jaula.engine.model.services import Services

Fill = Callable[[int], object]
"""Writes into a root directory, given as a descriptor."""


@contextmanager
def viewed(parts: Services, diff_ids: Sequence[str]) -> Iterator[int]:
    """A descriptor of the root of a stack of layers, for reading; an empty one of none."""
    if diff_ids:
        with open_root(parts.snapshots.view(diff_ids)) as root:
            yield root
        return
    with own_directory(parts) as path, open_directory(path) as root:
        yield root


def filled(
    parts: Services,
    diff_ids: Sequence[str],
    fill: Fill,
    pin: layers.Pin,
    *,
    newest: int | None = None,
    exact: bool = False,
) -> Layer | None:
    """The layer that ``fill`` makes on top of others; on none it is independent of any.

    ``newest`` and ``exact`` are as of :func:`~.layers.take`. None where nothing was changed.
    """
    if not diff_ids:
        with own_directory(parts) as path:
            with open_directory(path) as root:
                fill(root)
            if not os.listdir(path):
                return None
            return layers.from_directory(parts, path, pin, newest=newest, exact=exact)
    snapshot = new_id()
    try:
        parts.snapshots.create(snapshot, diff_ids)
        source = parts.snapshots.root(snapshot)
        if isinstance(source, OverlayRoot):
            source = msgspec.structs.replace(source, volatile=True)
        with open_root(source) as root:
            fill(root)
        return layers.take(parts, snapshot, pin, newest=newest, exact=exact)
    finally:
        _remove(parts, snapshot)


def make_directory(path: str, owner: tuple[int, int]) -> Fill:
    """What a WORKDIR does where its directory is missing."""

    def fill(root: int) -> None:
        os.close(paths.make_directory_in_root(root, path, made=own))

    def own(place: int) -> None:
        if owner != (0, 0):
            os.chown(f"/proc/self/fd/{place}", *owner)

    return fill


def is_directory(root: int, path: str) -> bool:
    """Whether there is one; raises ``InvalidRequest`` where something else is."""
    try:
        os.close(paths.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidRequest(
            f"{path!r} cannot be the working directory: {error.strerror}"
        ) from None
    return True


def owner_of(parts: Services, diff_ids: Sequence[str], text: str) -> tuple[int, int]:
    """``user[:group]`` as ids, names looked up in the files of a stack of layers.

    Without a group it is the user's own, or for a number the same number.
    """
    user, colon, group = text.partition(":")
    if user.isdigit() and (group.isdigit() or not colon) and text.isascii():
        ids = int(user[:11]), int((group if colon else user)[:11])
        if max(ids) > MAX_ID:
            raise InvalidRequest(f"invalid --chown {text[:64]!r}: ids end at {MAX_ID}")
        return ids
    with viewed(parts, diff_ids) as root:
        found = resolve_user(root, text, ())
    return found.uid, found.gid if colon or not user.isdigit() else found.uid


@contextmanager
def own_directory(parts: Services) -> Iterator[str]:
    """An empty root directory that goes with the block, or with the next start of an engine."""
    snapshot = new_id()
    top = parts.config.paths.container(snapshot)
    top.mkdir(mode=0o700)
    root = top / "upper"
    root.mkdir(mode=0o755)
    try:
        yield str(root)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _remove(parts: Services, snapshot: str) -> None:
    parts.snapshots.remove(snapshot)
    shutil.rmtree(parts.config.paths.container(snapshot), ignore_errors=True)
