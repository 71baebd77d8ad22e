"""Containers: records without files, files without a record, layers that are gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaula.engine.fsck.finding import Finding, FsckInputs
from jaula.state.records import ContainerRecord, Status


def check(facts: FsckInputs) -> Iterator[Finding]:
    """Compare the records with what is on disk."""
    for record in facts.records:
        yield from _of_record(facts, record)
    yield from _strays(facts)
    driver = facts.parts.snapshots
    for left in driver.leftovers():
        yield Finding("snapshot", left, "no container uses it", "it is removed", driver.sweep)


def _of_record(facts: FsckInputs, record: ContainerRecord) -> Iterator[Finding]:
    driver = facts.parts.snapshots
    if record.status is Status.DEAD:
        advice = "remove it again with `jaula rm`"
        yield Finding("container", record.name, "its removal was not finished", advice)
    elif record.storage_driver != driver.name:
        problem = f"its files are kept by the storage driver {record.storage_driver}"
        advice = f"start the engine with --storage-driver {record.storage_driver} to use it"
        yield Finding("container", record.name, problem, advice)
    elif not driver.exists(record.id):
        advice = "they cannot be brought back; remove it with `jaula rm`"
        yield Finding("container", record.name, "its files are gone", advice)
    if record.status in (Status.RUNNING, Status.PAUSED) and record.id not in facts.alive:
        problem = "it runs by its record, but its process is not known"
        yield Finding("container", record.name, problem, "restart the engine")
    for layer in record.layers:
        if not facts.parts.layers.is_on_disk(layer):
            problem = f"the layer {layer} of its image is gone"
            advice = "`system check --repair` if its image is there, or pull or load that again"
            yield Finding("container", record.name, problem, advice)


def _strays(facts: FsckInputs) -> Iterator[Finding]:
    paths = facts.parts.config.paths
    for parent in (paths.root / "containers", paths.run / "containers"):
        for name in sorted(os.listdir(parent)):
            if name not in facts.known and facts.is_old(parent / name):
                repair = partial(_remove, facts, parent / name)
                problem = "no container of that id is on record"
                yield Finding("container", str(parent / name), problem, "it is removed", repair)


def _remove(facts: FsckInputs, directory: Path) -> None:
    if directory.parent.parent == facts.parts.config.paths.root:
        facts.parts.snapshots.remove(directory.name)
    if directory.exists():
        shutil.rmtree(directory)
