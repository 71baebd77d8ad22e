"""The feature ``lazy``: layers that are mounted while they are fetched."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "lazy",
    lazy_layers="lazy_mounts:open_layers",
)
