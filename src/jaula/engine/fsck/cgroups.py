"""Cgroups of containers that do not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from jaula.cgroups import cgroup_path as cgroup_paths
from jaula.engine.containers.start import cgroup_path
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
    parent = cgroup_paths.parent_path(config.cgroup_parent, systemd=config.systemd_cgroups)
    for name in {name for directory in _locations(inputs, parent) for name in _names(directory)}:
        if id := cgroup_paths.container_id(name):
            yield id, f"{parent}/{name}"
    for record in inputs.records:
        path = cgroup_path(services, record)
        if path.rpartition("/")[0] != parent and _locations(inputs, path):
            yield record.id, path


def _locations(inputs: FsckInputs, path: str) -> set[str]:
    """Return the directories of a cgroup in all hierarchies."""
    try:
        with inputs.services.cgroups.open(path) as cgroup:
            return set(cgroup.locations().values())
    except NotFound:
        return set()


def _remove(inputs: FsckInputs, path: str) -> None:
    try:
        with inputs.services.cgroups.open(path) as cgroup:
            cgroup.kill()
            cgroup.destroy()
    except NotFound:
        return  # removed in the meantime


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
