"""The feature ``checkpoint``: checkpoints and rollbacks."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "checkpoint",
    idle=("store",),
    commands={
        "snapshot": "cli.snapshot",
        "rollback": "cli.rollback",
        "checkpoint create": "cli.checkpoint_create",
        "checkpoint export": "cli.checkpoint_export",
        "checkpoint import": "cli.checkpoint_import",
        "checkpoint inspect": "cli.checkpoint_inspect",
        "checkpoint ls": "cli.checkpoint_ls",
        "checkpoint rm": "cli.checkpoint_rm",
    },
    aliases={
        "checkpoint list": "checkpoint ls",
        "checkpoint remove": "checkpoint rm",
    },
    groups={
        "checkpoint": "Manage checkpoints of running containers (CRIU)",
    },
)
