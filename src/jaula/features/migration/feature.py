"""The feature ``migration``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "migration",
    commands={
        "container migrate": "cli.container_migrate",
        "host evacuate": "cli.host_evacuate",
    },
    groups={
        "host": "Manage this host",
    },
    routes={
        "jaula/containers": ("routes",),
        "jaula/migrate": ("routes",),
        "jaula/migrations": ("routes",),
    },
)
