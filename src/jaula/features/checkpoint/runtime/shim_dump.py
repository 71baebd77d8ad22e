"""Dumps in the helper of a shim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.features.checkpoint.runtime import dump as criu_dump
from jaula.features.checkpoint.runtime import expected, restore_network
from jaula.features.checkpoint.runtime.migration_hold import Hold

if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup, Interfaces
    from jaula.runtime.shim_protocol import CheckpointRequest, StartRequest
    from jaula.spec import runtime_spec


def dump(
    request: CheckpointRequest,
    start: StartRequest,
    spec: runtime_spec.Spec,
    state: runtime_spec.State,
    cgroup: Cgroup,
    interfaces: Interfaces,
    fd: int,
) -> None:
    """Write the images of a container; ``start`` is the request that has started it.

    ``fd`` is a socket on which the engine decides at the end. The rest is as in
    :func:`jaula.features.checkpoint.runtime.dump.dump`.
    """
    confinement = expected.of_container(spec, state, interfaces, seccomp_cache=start.seccomp_cache)
    held = Hold(start.run_dir) if request.hold else None
    criu_dump.dump(spec, confinement, request, state.pid, cgroup, fd, held)


def release(init: int, cgroup: Cgroup) -> None:
    """Let the processes of a container go on whose dump was killed; ``init`` is the first."""
    restore_network.unlock(init, cgroup.pids(), {})
    cgroup.thaw()
