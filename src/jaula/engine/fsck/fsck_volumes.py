"""Volumes: stray directories, missing metadata, mounts of missing volumes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.engine.fsck.problem import FsckInputs, Problem


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Compare volumes with their metadata and with the containers that mount them."""
    store = inputs.services.volumes
    for name in store.without_metadata():
        problem = "its metadata is missing or damaged"
        repair = partial(store.describe, name)
        yield Problem("volume", name, problem, "new metadata is written; its files stay", repair)
    for name in store.empty():
        advice = "they cannot be restored; remove the volume with `jaula volume rm`"
        yield Problem("volume", name, "the directory of its files is missing", advice)
    for name in store.strays():
        repair = partial(store.remove_stray, name)
        yield Problem("volume", name, "it is not a volume", "it is removed if it is empty", repair)
    for name in store.leftovers(inputs.engine_start):
        repair = partial(store.remove_leftover, name)
        yield Problem("volume", name, "it is unfinished", "it is removed", repair)
    for record in inputs.records:
        for mount in record.mounts:
            if mount.type == "volume" and not store.is_on_disk(mount.name):
                problem = f"it mounts the volume {mount.name}, which is missing"
                advice = f"`jaula volume create {mount.name}` creates an empty one"
                yield Problem("container", record.name, problem, advice)
