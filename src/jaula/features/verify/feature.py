"""The feature ``verify``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature, Hook

FEATURE = Feature(
    "verify",
    commands={
        "check": "cli.check",
        "verify": "cli.verify",
        "tree": "cli.tree",
    },
    hooks=(
        Hook("engine_started", "interval:start", lambda config: config.metrics_verify_interval > 0),
        Hook("engine_stopping", "diagnostics.service:close"),
    ),
    routes={
        "jaula/audit": ("routes",),
        "jaula/containers": ("routes",),
        "jaula/harden": ("routes",),
        "jaula/observe": ("routes",),
        "jaula/processes": ("routes",),
        "jaula/stats": ("routes",),
    },
)
