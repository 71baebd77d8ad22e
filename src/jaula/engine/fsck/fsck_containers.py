"""Containers: records without files, files without a record, missing layers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.spec.image_documents import diff_id_of
from jaula.spec.runtime_spec import decode
from jaula.state.container_records import ContainerRecord, Status


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Compare the records with the files on disk."""
    for record in inputs.records:
        yield from _check_record(inputs, record)
    yield from _check_directories(inputs)
    driver = inputs.services.snapshots
    for name in driver.leftovers():
        yield Problem("snapshot", name, "no container uses it", "it is removed", driver.sweep)


def _check_record(inputs: FsckInputs, record: ContainerRecord) -> Iterator[Problem]:
    driver = inputs.services.snapshots
    if record.status is Status.DEAD:
        advice = "remove it again with `jaula rm`"
        yield Problem("container", record.name, "its removal is incomplete", advice)
    elif record.storage_driver != driver.name:
        problem = f"its files belong to the storage driver {record.storage_driver}"
        advice = f"start the engine with --storage-driver {record.storage_driver} to use it"
        yield Problem("container", record.name, problem, advice)
    elif not driver.exists(record.id):
        advice = "they cannot be restored; remove the container with `jaula rm`"
        yield Problem("container", record.name, "its files are missing", advice)
    yield from _check_spec(inputs, record)
    if record.status in (Status.RUNNING, Status.PAUSED) and record.id not in inputs.alive:
        problem = "its record says that it runs, but its process is unknown"
        yield Problem("container", record.name, problem, "restart the engine")
    for layer in (*record.layers, *(name for mount in record.mounts for name in mount.layers)):
        layers, diff_id = inputs.services.layers, diff_id_of(layer)
        if not layers.is_on_disk(diff_id) and not layers.is_lazy(layer):
            problem = f"the layer {diff_id} of its image is missing"
            advice = "run `system check --repair`, or pull or load its image again"
            yield Problem("container", record.name, problem, advice)


def _check_spec(inputs: FsckInputs, record: ContainerRecord) -> Iterator[Problem]:
    """Report a spec of the last start that a power failure has damaged; the next one writes it."""
    path = inputs.services.config.paths.container(record.id) / "config.json"
    try:
        decode(path.read_bytes())
    except FileNotFoundError:
        return  # it was never started
    except (OSError, ValueError) as error:
        problem = f"the spec of its last start cannot be read: {error}"
        if record.id in inputs.alive:
            yield Problem("container", record.name, problem, "restart the container")
        else:
            yield Problem("container", record.name, problem, "it is removed", path.unlink)


def _check_directories(inputs: FsckInputs) -> Iterator[Problem]:
    paths = inputs.services.config.paths
    for parent in (paths.root / "containers", paths.run / "containers"):
        for name in sorted(os.listdir(parent)):
            if name not in inputs.known and inputs.is_old(parent / name):
                repair = partial(_remove, inputs, parent / name)
                problem = "no record has this container id"
                yield Problem("container", str(parent / name), problem, "it is removed", repair)


def _remove(inputs: FsckInputs, directory: Path) -> None:
    if directory.parent.parent == inputs.services.config.paths.root:
        inputs.services.snapshots.remove(directory.name)
    if directory.exists():
        shutil.rmtree(directory)
