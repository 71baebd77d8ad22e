"""The feature ``harden``: profiles from records and images."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "harden",
    commands={
        "harden": "cli.harden",
        "harden apply": "cli.harden_apply",
        "harden check": "cli.harden_check",
        "harden diff": "cli.harden_diff",
    },
    groups={
        "harden": "Compare, check and apply profiles of containers",
    },
)
