"""Cgroups of containers that do not run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.cgroups import cgroup_path as cgroup_paths
from jaula.engine.containers.cgroup_cleanup import cgroup_directories, container_cgroups
from jaula.engine.containers.container_cgroup import cgroup_path
from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.errors import NotFound


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Yield the cgroups that belong to no running container.

    Below the parent cgroup of the engine this is every cgroup of a container. Below a parent that a
    request named it is the cgroups of containers with a record.
    """
    for container_id, path in inputs.strays(lambda: _cgroups(inputs)):
        repair = partial(_remove, inputs, path)
        problem = "no container of this id is running"
        advice = "its processes are killed"
        yield Problem("cgroup", path, problem, advice, repair, container_id)


def _cgroups(inputs: FsckInputs) -> Iterator[tuple[str, str]]:
    """Yield the container id and the path of each cgroup of a container."""
    services = inputs.services
    config = services.config
    yield from container_cgroups(services)
    parent = cgroup_paths.parent_path(config.cgroup_parent, systemd=config.systemd_cgroups)
    for record in inputs.records:
        path = cgroup_path(services, record)
        if path.rpartition("/")[0] != parent and cgroup_directories(services, path):
            yield record.id, path


def _remove(inputs: FsckInputs, path: str) -> None:
    try:
        with inputs.services.cgroups.open(path) as cgroup:
            cgroup.kill()
            cgroup.destroy()
    except NotFound:
        return  # removed in the meantime
