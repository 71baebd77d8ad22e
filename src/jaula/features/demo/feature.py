"""The feature ``demo``: the guided tour."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "demo",
    commands={
        "demo": "demo_cli",
    },
)
