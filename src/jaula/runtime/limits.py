"""Limits that are set on a process from outside, where the host's privileges are.

Follows runtime-spec config.md, "process.rlimits" and "process.oomScoreAdj"; prlimit(2).
"""

from __future__ import annotations

import resource

from jaula.errors import RuntimeFailure
from jaula.spec.runtime import Process


def set_limits(pid: int, wanted: Process) -> None:
    """Rlimits and oom_score_adj of a process that waits to become ``wanted``."""
    for limit in wanted.rlimits:
        number = getattr(resource, limit.type, None)
        if number is None:
            raise RuntimeFailure(f"unknown resource limit {limit.type!r}")
        try:
            resource.prlimit(pid, number, (_rlim(limit.soft), _rlim(limit.hard)))
        except (PermissionError, ValueError, OSError) as error:
            raise RuntimeFailure(
                f"{limit.type.lower()} soft {limit.soft} hard {limit.hard}: {error}",
                hint="the engine may not raise its own hard limit",
            ) from None
    adjustment = wanted.oom_score_adj
    if adjustment is not None:
        try:
            with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
                file.write(b"%d" % adjustment)
        except PermissionError:
            raise RuntimeFailure(
                f"oom_score_adj {adjustment}: permission denied",
                hint="lowering it needs CAP_SYS_RESOURCE, which this engine lacks",
            ) from None


def _rlim(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value
