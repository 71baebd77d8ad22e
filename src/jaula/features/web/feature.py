"""The feature ``web``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "web",
    commands={
        "web": "cli",
    },
    routes={
        "jaula/web": ("routes",),
    },
)
