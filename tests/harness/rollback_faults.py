"""An engine that is killed at a chosen step of a rollback; see :mod:`counted_steps`.

A step is a change of a directory (mkdir, rename, rmdir), a write of a record, or a call of a method
of the rollback.
"""

from __future__ import annotations

import os

from counted_steps import CountedSteps, main


def replace(steps: CountedSteps) -> None:
    from jaula.engine.containers.rollback import Rollbacks
    from jaula.engine.model.container_store import ContainerStore

    for name in ("mkdir", "rename", "rmdir"):
        steps.count(os, name)
    steps.count(ContainerStore, "save")
    for name in ("_complete", "_continue", "_check_users"):
        steps.count(Rollbacks, name)
    steps.during(Rollbacks, "rollback")


if __name__ == "__main__":
    main(replace)
