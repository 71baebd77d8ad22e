"""The feature ``debug``: debug sessions."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.state.container_records import ContainerRecord


def _is_copy(record: ContainerRecord) -> bool:
    return record.debug_copy


FEATURE = Feature(
    "debug",
    commands={
        "debug": "cli.debug",
    },
    hooks=(Hook("container_restored", "hooks:remove_copy", _is_copy),),
    runtime={"debug-root": "root:enter"},
    routes={
        "jaula/containers": ("routes",),
        "jaula/debug-copies": ("routes",),
    },
)
