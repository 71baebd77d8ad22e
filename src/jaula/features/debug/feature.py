"""The feature ``debug``: debug sessions."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "debug",
    commands={
        "debug": "cli.debug",
    },
)
