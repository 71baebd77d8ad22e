"""The feature ``migrate_from``: takeover of docker and podman."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "migrate_from",
    commands={
        "migrate-from": "migrate_from_cli",
    },
)
