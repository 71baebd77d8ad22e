"""Cgroups below the engine's own that are of no container that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaula.engine.fsck.finding import Finding, FsckInputs
from jaula.errors import NotFound

_ID = 64  # digits


def check(facts: FsckInputs) -> Iterator[Finding]:
    """Look at what is below the parent of all containers' cgroups."""
    parent = f"/{facts.parts.config.cgroup_parent.strip('/')}"
    try:
        with facts.parts.cgroups.open(parent) as cgroup:
            directories = set(cgroup.locations().values())
    except NotFound:
        return
    found = {
        name
        for directory in directories
        for name in _children(directory)
        if facts.is_old(Path(directory, name))
    }
    for name in sorted(found - facts.alive):
        repair = partial(_remove, facts, f"{parent}/{name}")
        problem = "no container of that id runs"
        yield Finding("cgroup", f"{parent}/{name}", problem, "its processes are ended", repair)


def _remove(facts: FsckInputs, path: str) -> None:
    try:
        with facts.parts.cgroups.open(path) as cgroup:
            cgroup.kill()
            cgroup.destroy()
    except NotFound:
        return  # it went by itself


def _children(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [name for name in names if len(name) == _ID and not name.strip("0123456789abcdef")]
