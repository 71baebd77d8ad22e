"""The feature ``build``: builds, their cache and BuildKit's protocol."""

from __future__ import annotations

from jaula.feature import Feature, Hook

FEATURE = Feature(
    "build",
    idle=("hooks",),
    commands={
        "build": "cli.build_command",
        "builder build": "cli.build_command",
        "builder prune": "cli.builder_prune",
        "image build": "cli.build_command",
    },
    groups={
        "builder": "Build images",
    },
    hooks=(
        Hook("restoring", "hooks:sweep"),
        Hook("engine_stopping", "hooks:close"),
        Hook("build_cache", "hooks:cache_usage"),
    ),
    routes={
        "": ("routes",),
        "build": ("routes",),
        "grpc": ("routes",),
        "jaula/builds": ("routes",),
        "session": ("routes",),
    },
)
