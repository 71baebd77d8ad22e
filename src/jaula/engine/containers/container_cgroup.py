"""The cgroup of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.cgroups.cgroup_path import container_path

if TYPE_CHECKING:
    from jaula.cgroups.cgroup_driver import Cgroup
    from jaula.config import EngineConfig
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord


def cgroup_path(services: Services, record: ContainerRecord) -> str:
    """Return the cgroup of a container.

    It was decided when the container was created; a record without it is of a former engine, or of
    a build.
    """
    parent = record.host_config.cgroup_parent
    return record.cgroup or new_cgroup_path(services.config, parent, record.id)


def new_cgroup_path(config: EngineConfig, parent: str, container_id: str) -> str:
    """Return the cgroup of a new container, below the requested parent or the engine's. Pure.

    :raises InvalidRequest: when the parent is not valid.
    """
    parent = parent or config.cgroup_parent
    return container_path(parent, container_id, systemd=config.systemd_cgroups)


def open_cgroup(services: Services, record: ContainerRecord) -> Cgroup:
    """Open the cgroup of a container; the caller closes it.

    :raises NotFound: when there is none.
    """
    return services.cgroups.open(cgroup_path(services, record))
