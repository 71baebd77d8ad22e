"""The feature ``quadlet``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "quadlet",
    commands={
        "generate systemd": "cli",
    },
    groups={
        "generate": "Write services of systemd",
    },
)
