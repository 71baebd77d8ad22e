"""The feature ``edit``: changes of containers that exist."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "edit",
    commands={
        "edit": "cli.edit",
    },
)
