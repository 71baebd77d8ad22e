"""The OOM score adjustment of a pod's processes, within what the engine may set.

Fact: lowering ``oom_score_adj`` below that of the process needs ``CAP_SYS_RESOURCE`` in the initial
user namespace (proc_pid_oom_score_adj(5)). A node in a container lacks it, and the kubelet asks for
-998 all the same. So the score is raised to the engine's own there, as containerd's
``restrict_oom_score_adj`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from jaula.kernel import capabilities

_SYS_RESOURCE = 1 << 24


def permitted(requested: int) -> int:
    """Return the requested adjustment, or the engine's own if the kernel would refuse it."""
    if requested >= 0 or capabilities.capget()[0] & _SYS_RESOURCE:
        return requested
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return max(requested, int(file.read()))


def write(read_pids: Callable[[], Iterable[int]], score: int) -> None:
    """Set the adjustment of every process of a container, those included that it creates meanwhile.

    A new process has the adjustment of its parent (fork(2)), so it is complete when the list of
    processes has no new one.

    :raises OSError: when the kernel refuses the value.
    """
    done: set[int] = set()
    while new := set(read_pids()) - done:
        for pid in new:
            with (
                suppress(FileNotFoundError, ProcessLookupError),  # it has exited
                open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file,
            ):
                file.write(str(score))
        done |= new
