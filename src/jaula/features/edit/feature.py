"""The feature ``edit``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "edit",
    commands={
        "edit": "cli.edit",
    },
)
