"""The feature ``lazy``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "lazy",
    lazy_layers="layers:open_layers",
)
