"""The v1 ``freezer`` controller.

Source: kernel ``admin-guide/cgroup-v1/freezer-subsystem.rst``. The state is ``FREEZING`` while a
task cannot be stopped or a fork races the walk. Reading the file makes the kernel check again, and
the request is repeated from time to time.
"""

from __future__ import annotations

import time

from jaula.cgroups import cgroup_files
from jaula.cgroups.cgroup_files import Reader, Step
from jaula.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

STATE = "freezer.state"
_PAUSES = (0.0, 0.0002, 0.0005, 0.001, 0.002, 0.005)  # seconds; the last one repeats


class Freezer:
    """The v1 ``freezer`` controller."""

    name = "freezer"
    section = ""
    limits: tuple[str, ...] = ()

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return ()


def freeze(directory: int, path: str, timeout: float) -> None:
    """Freeze every task.

    :raises Unavailable: when tasks still run after ``timeout`` seconds; the cgroup is then thawed.
    """
    deadline = time.monotonic() + timeout
    attempt = 0
    while True:
        if attempt % 20 == 0:
            cgroup_files.write(directory, STATE, "FROZEN")
        if cgroup_files.read(directory, STATE) == "FROZEN":
            return
        if time.monotonic() > deadline:
            thaw(directory)
            raise Unavailable(f"cgroup {path} did not freeze within {timeout} seconds")
        time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        attempt += 1


def begin(directory: int) -> None:
    """Freeze every task as soon as it runs."""
    cgroup_files.write(directory, STATE, "FROZEN")


def thaw(directory: int) -> None:
    """Thaw every task."""
    cgroup_files.write(directory, STATE, "THAWED")


def frozen(directory: int) -> bool:
    """Return whether every task is frozen."""
    return cgroup_files.read(directory, STATE) == "FROZEN"
