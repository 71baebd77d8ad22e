"""The feature ``verify``: proof of the isolation, and views of it."""

from __future__ import annotations

from jaula.feature import Feature, Hook

FEATURE = Feature(
    "verify",
    idle=("hooks",),
    commands={
        "verify": "cli.verify",
        "tree": "cli.tree",
    },
    hooks=(Hook("engine_stopping", "hooks:close"),),
    routes={
        "jaula/audit": ("routes",),
        "jaula/containers": ("routes",),
        "jaula/harden": ("routes",),
        "jaula/observe": ("routes",),
        "jaula/processes": ("routes",),
        "jaula/stats": ("routes",),
    },
)
