"""The feature ``secrets``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "secrets",
    commands={
        "config create": "cli.config_create",
        "config inspect": "cli.config_inspect",
        "config ls": "cli.config_ls",
        "config rm": "cli.config_rm",
        "secret create": "cli.secret_create",
        "secret inspect": "cli.secret_inspect",
        "secret ls": "cli.secret_ls",
        "secret rm": "cli.secret_rm",
    },
    aliases={
        "config list": "config ls",
        "config remove": "config rm",
        "secret list": "secret ls",
        "secret remove": "secret rm",
    },
    groups={
        "config": "Manage configs (read-only files for containers)",
        "secret": "Manage secrets (files on a tmpfs, readable by the container only)",
    },
    routes={
        "configs": ("routes",),
        "secrets": ("routes",),
    },
)
