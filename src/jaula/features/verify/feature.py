"""The feature ``verify``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "verify",
    commands={
        "check": "cli.check",
        "verify": "cli.verify",
        "tree": "cli.tree",
    },
    routes={
        "jaula/audit": ("routes",),
        "jaula/containers": ("routes",),
        "jaula/harden": ("routes",),
        "jaula/observe": ("routes",),
        "jaula/processes": ("routes",),
        "jaula/stats": ("routes",),
    },
)
