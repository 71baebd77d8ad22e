"""The feature ``doctor``: diagnosis of the host."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "doctor",
    commands={
        "check": "cli.check_command",
        "doctor": "cli.doctor",
    },
)
