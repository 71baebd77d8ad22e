"""``checkBeforeUpdate`` of a memory limit: reject a limit below the current usage. Pure.

Source: OCI config-linux.md "Memory". v2 accepts a limit below the usage and kills processes until
it holds.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_files import Reader, number
from jaula.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Memory


def check(memory: Memory, current: Reader, usage: str, peak: str) -> None:
    """Check the new limit against the file ``usage``, in bytes.

    :raises Conflict: when the limit is below the current usage.
    """
    if not memory.check_before_update or not memory.limit or memory.limit < 0:
        return
    current_usage = number(current(usage))
    if memory.limit < current_usage:
        raise Conflict(
            f"unable to set memory limit to {memory.limit} "
            f"(current usage: {current_usage}, peak usage: {number(current(peak))})"
        )
