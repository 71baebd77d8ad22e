"""Dumps in the helper of a shim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.features.checkpoint.runtime import dump as criu_dump
from jaula.features.checkpoint.runtime import expected, network
from jaula.features.checkpoint.runtime.hold import Hold

if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup, Interfaces
    from jaula.runtime.protocol import CheckpointRequest, StartRequest
    from jaula.spec import runtime as oci


def dump(
    request: CheckpointRequest,
    start: StartRequest,
    spec: oci.Spec,
    state: oci.State,
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
    network.unlock(init, cgroup.pids(), {})
    cgroup.thaw()
