"""An engine that is killed at a step of the import of a checkpoint; see :mod:`counted_steps`.

A step is a change of a directory (mkdir, link, rename, rmdir) or a write of a record.
"""

from __future__ import annotations

import os

from counted_steps import CountedSteps, main


def replace(steps: CountedSteps) -> None:
    from jaula.engine.model.container_store import ContainerStore
    from jaula.features.checkpoint.checkpoint_export import CheckpointArchives

    for name in ("mkdir", "link", "rename", "rmdir"):
        steps.count(os, name)
    for name in ("add", "save"):
        steps.count(ContainerStore, name, ends=True)
    steps.during(CheckpointArchives, "import_")


if __name__ == "__main__":
    main(replace)
