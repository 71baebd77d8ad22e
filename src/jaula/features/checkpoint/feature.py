"""The feature ``checkpoint``: checkpoints and rollbacks."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.state.container_records import ContainerRecord


def _is_rolled_back(record: ContainerRecord) -> bool:
    return bool(record.rollback)


FEATURE = Feature(
    "checkpoint",
    idle=("checkpoint_store", "hooks"),
    commands={
        "clone": "cli.clone",
        "snapshot": "cli.snapshot",
        "rollback": "cli.rollback",
        "checkpoint create": "cli.checkpoint:CREATE",
        "checkpoint export": "cli.checkpoint:EXPORT",
        "checkpoint import": "cli.checkpoint:IMPORT",
        "checkpoint inspect": "cli.checkpoint:INSPECT",
        "checkpoint ls": "cli.checkpoint:LS",
        "checkpoint rm": "cli.checkpoint:RM",
    },
    aliases={
        "checkpoint list": "checkpoint ls",
        "checkpoint remove": "checkpoint rm",
    },
    hooks=(
        Hook("restoring", "hooks:sweep"),
        Hook("checkpoint_opened", "hooks:open_checkpoint"),
        Hook("start_requested", "hooks:put_back", _is_rolled_back),
        Hook("exit_recorded", "hooks:recover", _is_rolled_back),
        Hook("container_restored", "hooks:resume", _is_rolled_back),
        Hook("before_removal", "hooks:remove_all"),
    ),
    runtime={
        "dump": "runtime.shim_dump:dump",
        "dump-killed": "runtime.shim_dump:release",
        "restore": "runtime.criu_restore:start",
    },
    routes={
        "containers": ("routes",),
        "jaula/checkpoints": ("routes",),
        "jaula/containers": ("routes",),
    },
    groups={
        "checkpoint": "Manage checkpoints of running containers (CRIU)",
    },
)
