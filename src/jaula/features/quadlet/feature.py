"""The feature ``quadlet``: unit files of containers."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "quadlet",
    commands={
        "generate systemd": "generate_cli",
    },
    groups={
        "generate": "Write services of systemd",
    },
)
