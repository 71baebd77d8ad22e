"""The feature ``edit``: changes of containers that exist."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.state.container_records import ContainerRecord


def _is_interrupted(record: ContainerRecord) -> bool:
    return record.edit_intent is not None


def _is_changed(record: ContainerRecord) -> bool:
    return bool(record.live_changes)


FEATURE = Feature(
    "edit",
    commands={
        "edit": "cli.edit_command",
    },
    hooks=(
        Hook("processes_found", "hooks:undo", _is_interrupted),
        Hook("container_inspected", "hooks:inspect", _is_changed),
    ),
    runtime={"mounts": "live_mounts:change"},
    routes={"jaula/containers": ("routes",)},
)
