"""The feature ``doctor``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "doctor",
    commands={
        "check": "cli.check",
        "doctor": "cli.doctor",
    },
)
