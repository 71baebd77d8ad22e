"""The feature ``migration``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature, Hook

FEATURE = Feature(
    "migration",
    commands={
        "container migrate": "cli.container_migrate",
        "host evacuate": "cli.host_evacuate",
    },
    groups={
        "host": "Manage this host",
    },
    hooks=(
        Hook("restoring", "service:resume"),
        Hook("restored", "service:recover"),
        Hook("engine_stopping", "service:close"),
        Hook("tls_streams", "service:tls_streams"),
    ),
    tls_protocols=("jaula-migration-data",),
    routes={
        "jaula/containers": ("routes",),
        "jaula/migrate": ("routes",),
        "jaula/migrations": ("routes",),
    },
)
