"""The feature ``migration``: live migration."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.state.container_records import ContainerRecord


def _is_moved(record: ContainerRecord) -> bool:
    return record.migration is not None


FEATURE = Feature(
    "migration",
    idle=("hooks",),
    commands={
        "container migrate": "cli.container_migrate",
        "host evacuate": "cli.host_evacuate",
    },
    groups={
        "host": "Manage this host",
    },
    hooks=(
        Hook("restoring", "hooks:resume"),
        Hook("restored", "hooks:recover"),
        Hook("engine_stopping", "hooks:close"),
        Hook("tls_streams", "hooks:tls_streams"),
        Hook("container_inspected", "hooks:inspect", _is_moved),
    ),
    tls_protocols=("jaula-migration-data",),
    routes={
        "jaula/containers": ("routes",),
        "jaula/migrate": ("routes",),
        "jaula/migrations": ("routes",),
    },
)
