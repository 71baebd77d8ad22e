"""Mounts of containers that do not run: secrets, and a /dev/shm that others may join."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.kernel import mountinfo, mounts


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Yield the mounts in the directories of containers that do not run."""
    for container_id, target in inputs.strays(lambda: _mounts(inputs)):
        repair = partial(_unmount, target)
        problem = "no container of this id is running"
        yield Problem("mount", target, problem, "it is unmounted", repair, container_id)


def _mounts(inputs: FsckInputs) -> Iterator[tuple[str, str]]:
    """Yield the container id and the mount point of each mount in a container's directory."""
    paths = inputs.services.config.paths
    parents = tuple(f"{parent}/containers/" for parent in (paths.root, paths.run))
    for mount in mountinfo.read():
        for parent in parents:
            if mount.target.startswith(parent):
                yield mount.target.removeprefix(parent).split("/")[0], mount.target


def _unmount(target: str) -> None:
    try:
        while mounts.is_mount_point(target):
            mounts.umount2(target, mounts.MNT.DETACH)
    except FileNotFoundError:
        return  # removed in the meantime
