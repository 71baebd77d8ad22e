"""Volumes: directories that are none, descriptions that are gone, mounts of what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.engine.fsck.finding import Finding, FsckInputs


def check(facts: FsckInputs) -> Iterator[Finding]:
    """Compare volumes with their descriptions and with the containers that mount them."""
    store = facts.parts.volumes
    for name in store.without_metadata():
        problem = "its description is missing or damaged"
        repair = partial(store.describe, name)
        yield Finding("volume", name, problem, "it gets a new one; its files stay", repair)
    for name in store.empty():
        advice = "they cannot be brought back; remove it with `jaula volume rm`"
        yield Finding("volume", name, "the directory of its files is gone", advice)
    for name in store.strays():
        repair = partial(store.remove_stray, name)
        yield Finding("volume", name, "it is no volume", "it is removed if it is empty", repair)
    for left in store.leftovers(facts.begun):
        repair = partial(store.remove_leftover, left)
        yield Finding("volume", left, "it was never finished", "it is removed", repair)
    for record in facts.records:
        for mount in record.mounts:
            if mount.type == "volume" and not store.is_on_disk(mount.name):
                problem = f"the volume {mount.name} that it mounts is gone"
                advice = f"`jaula volume create {mount.name}` makes an empty one"
                yield Finding("container", record.name, problem, advice)
