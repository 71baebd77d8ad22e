"""When the CFS burst of a cgroup is written: it may never be more than the quota, at any moment.

Source: kernel ``scheduler/sched-bwc.rst`` "Burst". So one that falls goes before the quota, which
may fall as well, and one that rises goes behind.
"""

from __future__ import annotations

import msgspec

from jaula.cgroups.files import FileWrite, Reader, Step, number

_NO_BURST = "this kernel has no cfs burst, it is not in force"


class Burst(msgspec.Struct, frozen=True):
    """Writes before and behind that of the quota."""

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()


def step(wanted: int | None, file: str, current: Reader) -> Burst:
    """``wanted`` is microseconds, None to leave it."""
    if wanted is None:
        return Burst()
    write = FileWrite(file, str(wanted), missing=_NO_BURST)
    return Burst(before=(write,)) if wanted < number(current(file)) else Burst(after=(write,))
