"""Cgroups of containers that do not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaula.engine.fsck.finding import Finding, FsckInputs
from jaula.errors import NotFound

_ID_LENGTH = 64  # digits


def check(inputs: FsckInputs) -> Iterator[Finding]:
    """Yield the cgroups below the parent cgroup that belong to no running container."""
    parent = f"/{inputs.services.config.cgroup_parent.strip('/')}"
    try:
        with inputs.services.cgroups.open(parent) as cgroup:
            directories = set(cgroup.locations().values())
    except NotFound:
        return
    candidates = {
        name
        for directory in directories
        for name in _children(directory)
        if inputs.is_old(Path(directory, name))
    }
    for name in sorted(candidates - inputs.alive):
        repair = partial(_remove, inputs, f"{parent}/{name}")
        problem = "no container of this id is running"
        yield Finding("cgroup", f"{parent}/{name}", problem, "its processes are killed", repair)


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
