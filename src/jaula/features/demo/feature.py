"""The feature ``demo``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "demo",
    commands={
        "demo": "cli",
    },
)
