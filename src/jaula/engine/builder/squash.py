"""``squash``: all layers that a build added as one, upon those of its base. Synchronous."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.builder import copy, layers
from jaula.spec.image import History
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

    from jaula.engine.builder.image_state import ImageState, Layer
    from jaula.engine.builder.source_date_epoch import SourceDateEpoch
    from jaula.engine.model.services import Services


def squashed(
    parts: Services, state: ImageState, clock: SourceDateEpoch, pin: layers.Pin
) -> ImageState:
    """The same image with one layer of the build's own; its history tells all steps."""
    base, own = state.layers[: state.base_layers], state.layers[state.base_layers :]
    if not own:
        return state
    layer = _one(parts, [layer.diff_id for layer in own], pin, clock.newest)
    steps = tuple(msgspec.structs.replace(step, empty_layer=True) for step in state.own_history)
    last = History(
        created=clock.now(), comment=f"squashed {len(own)} layers", empty_layer=layer is None
    )
    return msgspec.structs.replace(
        state,
        layers=base if layer is None else (*base, layer),
        history=(*state.history[: state.base_history], *steps, last),
    )


def _one(
    parts: Services, diff_ids: Sequence[str], pin: layers.Pin, newest: int | None
) -> Layer | None:
    with copy.own_directory(parts) as path:
        with open_directory(path) as target:
            for diff_id in diff_ids:
                with open_directory(parts.layers.path(diff_id)) as source:
                    copy_tree(source, target, whiteout=_hide)
                    _make_opaque(source, target)
        if not os.listdir(path):  # opened anew: btrfs shows what there was when it was opened
            return None
        return layers.from_directory(parts, path, pin, newest=newest)


def _hide(folder: int, name: bytes) -> None:
    """What a later layer deletes is gone here, and hidden where the base has it."""
    remove_tree(folder, name)
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=folder)


def _make_opaque(source: int, target: int) -> None:
    for path, folder, _ in walk(source):
        if path and is_opaque(folder):
            place = open_subdirectory(target, path)
            try:
                os.setxattr(place, opaque_xattr(), b"y")
            finally:
                os.close(place)
