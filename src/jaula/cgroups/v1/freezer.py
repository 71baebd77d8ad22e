"""The v1 ``freezer`` controller.

Source: kernel ``admin-guide/cgroup-v1/freezer-subsystem.rst``. ``FREEZING`` may last as long as a
task sits in a place where it cannot be stopped or a fork races the walk; the file is read again,
which makes the kernel look again, and the request is repeated now and then.
"""

from __future__ import annotations

import time

from jaula.cgroups import files
from jaula.cgroups.files import Reader, Step
from jaula.errors import Unavailable
from jaula.spec.runtime import Resources

STATE = "freezer.state"
_PAUSES = (0.0, 0.0002, 0.0005, 0.001, 0.002, 0.005)  # seconds, then the last again and again


class Freezer:
    name = "freezer"
    limits: tuple[str, ...] = ()

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return ()


def freeze(directory: int, path: str, timeout: float) -> None:
    """Stop every task; raises ``Unavailable`` (and thaws) when some run on for ``timeout`` s."""
    deadline = time.monotonic() + timeout
    attempt = 0
    while True:
        if attempt % 20 == 0:
            files.write(directory, STATE, "FROZEN")
        if files.read(directory, STATE) == "FROZEN":
            return
        if time.monotonic() > deadline:
            thaw(directory)
            raise Unavailable(f"cgroup {path} did not freeze within {timeout} seconds")
        time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        attempt += 1


def thaw(directory: int) -> None:
    """Let every task go on."""
    files.write(directory, STATE, "THAWED")


def frozen(directory: int) -> bool:
    """Whether every task has stopped."""
    return files.read(directory, STATE) == "FROZEN"
