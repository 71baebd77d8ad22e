"""Cgroups of containers that do not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from jaula.engine.containers.start import cgroup_path
from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.errors import NotFound

_ID_LENGTH = 64  # digits


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
    parent = f"/{services.config.cgroup_parent.strip('/')}"
    for name in {name for directory in _locations(inputs, parent) for name in _children(directory)}:
        yield name, f"{parent}/{name}"
    for record in inputs.records:
        path = cgroup_path(services, record)
        if not path.startswith(f"{parent}/{record.id}") and _locations(inputs, path):
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


def _children(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [
        name for name in names if len(name) == _ID_LENGTH and not name.strip("0123456789abcdef")
    ]
