"""Order of writes for the CFS burst, which must never exceed the quota.

Source: kernel ``scheduler/sched-bwc.rst`` "Burst". A lower burst is written before the quota, which
may be lowered too; a higher one is written after it.
"""

from __future__ import annotations

import msgspec

from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, number

_NO_BURST = "this kernel has no cfs burst, it is not in effect"


class Burst(msgspec.Struct, frozen=True):
    """Writes before and after the quota's."""

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()


def step(burst: int | None, file: str, current: Reader) -> Burst:
    """Return the writes that set the burst to ``burst`` microseconds; None leaves it."""
    if burst is None:
        return Burst()
    write = FileWrite(file, str(burst), missing=_NO_BURST)
    return Burst(before=(write,)) if burst < number(current(file)) else Burst(after=(write,))
