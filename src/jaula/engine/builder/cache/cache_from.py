"""Steps that images lend: the history of one says which keys its layers were made under. Pure.

``cachefrom`` names images that are believed. A step of theirs is taken where its key is the one
that is looked for, so where it was made of the same layers, files and command.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.engine.builder.image_state import ImageState, Layer

_MARK = "jaula.build "
_DIGITS = 40


def noted(key: str) -> str:
    """What a step's history says of its key."""
    return _MARK + key[:_DIGITS]


def find_step(lenders: Iterable[ImageState], key: str) -> tuple[Layer | None, str] | None:
    """The layer of the step with that key, and when it was made; None where no lender has it."""
    for lender in lenders:
        layers = iter(lender.layers)
        for step in lender.history:
            layer = None if step.empty_layer else next(layers, None)
            if step.comment == noted(key) and (step.empty_layer or layer is not None):
                return layer, step.created
    return None
