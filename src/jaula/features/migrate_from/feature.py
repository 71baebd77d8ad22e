"""The feature ``migrate_from``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "migrate_from",
    commands={
        "migrate-from": "cli",
    },
)
