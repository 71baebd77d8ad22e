"""The feature ``debug``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "debug",
    commands={
        "debug": "cli.debug",
    },
)
