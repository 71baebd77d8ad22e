"""The feature ``why``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "why",
    commands={
        "why": "cli.why",
    },
)
