"""``checkBeforeUpdate`` of a memory limit: not below what is in use. Pure.

Source: OCI config-linux.md "Memory". v2 takes a limit below the use and kills until it holds.
"""

from __future__ import annotations

from jaula.cgroups.files import Reader, number
from jaula.errors import Conflict
from jaula.spec.runtime import Memory


def check(memory: Memory, current: Reader, usage: str, peak: str) -> None:
    """Raise ``Conflict`` for a limit below the number in the file ``usage``; bytes."""
    if not memory.check_before_update or not memory.limit or memory.limit < 0:
        return
    used = number(current(usage))
    if memory.limit < used:
        raise Conflict(
            f"unable to set memory limit to {memory.limit} "
            f"(current usage: {used}, peak usage: {number(current(peak))})"
        )
