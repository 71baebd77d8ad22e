"""The feature ``metrics``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "metrics",
    routes={
        "metrics": ("routes",),
    },
)
