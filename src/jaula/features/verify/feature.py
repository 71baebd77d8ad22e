"""The feature ``verify``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature, Hook

FEATURE = Feature(
    "verify",
    commands={
        "verify": "cli.verify",
        "tree": "cli.tree",
    },
    hooks=(Hook("engine_stopping", "diagnostics.service:close"),),
    routes={
        "jaula/audit": ("routes",),
        "jaula/containers": ("routes",),
        "jaula/harden": ("routes",),
        "jaula/observe": ("routes",),
        "jaula/processes": ("routes",),
        "jaula/stats": ("routes",),
    },
)
