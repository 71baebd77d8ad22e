"""``--squash``: replace the layers that a build added by one, above those of its base image.

Synchronous, for threads.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from jaula.features.build.builder import copy_step
from jaula.features.build.builder.image_state import layer_of_directory
from jaula.spec.image_documents import History
from jaula.storage.trees import (
    copy_tree,
    is_opaque,
    opaque_xattr,
    open_directory,
    open_subdirectory,
    remove_tree,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.model.services import Services
    from jaula.features.build.builder.image_state import ImageState, Layer, Pin, SourceDateEpoch


def squash(services: Services, state: ImageState, clock: SourceDateEpoch, pin: Pin) -> ImageState:
    """Return the same image with one layer of its own; the history keeps all steps."""
    base, own = state.layers[: state.base_layers], state.layers[state.base_layers :]
    if not own:
        return state
    layer = _merge(services, [layer.diff_id for layer in own], pin, clock.newest)
    steps = tuple(msgspec.structs.replace(step, empty_layer=True) for step in state.own_history)
    last = History(
        created=clock.now(), comment=f"squashed {len(own)} layers", empty_layer=layer is None
    )
    return msgspec.structs.replace(
        state,
        layers=base if layer is None else (*base, layer),
        history=(*state.history[: state.base_history], *steps, last),
    )


def _merge(
    services: Services, diff_ids: Sequence[str], pin: Pin, newest: int | None
) -> Layer | None:
    with copy_step.temporary_root(services) as path:
        with open_directory(path) as target:
            for diff_id in diff_ids:
                with open_directory(services.layers.path(diff_id)) as source:
                    copy_tree(source, target, whiteout=_replace_by_whiteout)
                    _copy_opaque(source, target)
        if not os.listdir(path):  # a new open: on btrfs an old one lists the old entries
            return None
        return layer_of_directory(services, path, pin, newest=newest)


def _replace_by_whiteout(directory: int, name: bytes) -> None:
    """Remove a file that a later layer deletes, and hide the one of the base image."""
    remove_tree(directory, name)
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)


def _copy_opaque(source: int, target: int) -> None:
    for path, directory, _ in walk(source):
        if path and is_opaque(directory):
            descriptor = open_subdirectory(target, path)
            try:
                os.setxattr(descriptor, opaque_xattr(), b"y")
            finally:
                os.close(descriptor)
