"""The feature ``report``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "report",
    commands={
        "report": "cli",
    },
)
