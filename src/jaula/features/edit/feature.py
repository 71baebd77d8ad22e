"""The feature ``edit``: changes of containers that exist."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.state.records import ContainerRecord


def _is_interrupted(record: ContainerRecord) -> bool:
    return record.edit_intent is not None


FEATURE = Feature(
    "edit",
    commands={
        "edit": "cli.edit",
    },
    hooks=(Hook("processes_found", "hooks:undo", _is_interrupted),),
    runtime={"mounts": "live_mounts:change"},
    routes={"jaula/containers": ("routes",)},
)
