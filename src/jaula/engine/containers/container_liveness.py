"""Whether the processes of a container exist at this moment, and what their exit means to a client.

The engine records an exit some milliseconds after the kernel performed it: the shim first drains
the output and removes the cgroup. In between, the record says ``running``, and every step that
needs the processes fails in its own way:

* The cgroup or one of its files is absent (ENOENT, ENODEV).
* ``/proc/PID`` is absent, or setns(2) fails with ESRCH.
* clone3(2) fails with ENOMEM: the pid namespace is being dismantled.
* The shim has closed its connection, or the new process was killed with its namespace.

None of these errors is an answer for the client. The container has exited, and Docker says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from jaula.engine.userns import join
from jaula.errors import Conflict, JaulaError
from jaula.state.container_records import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.model.container import Container
    from jaula.runtime.runtime_client import Shim

_EXIT_TIMEOUT = 5.0  # seconds from the exit of init to its record: the shim needs 2 at most


def not_running(container: Container) -> Conflict:
    """Return Docker's error for a container without processes."""
    if container.record.status is Status.RESTARTING:
        return Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    return Conflict(f"container {container.id} is not running")


def check_running(container: Container) -> None:
    """Check that a container runs, according to its record.

    :raises Conflict: when it does not.
    """
    if not container.live:
        raise not_running(container)


async def has_exited(container: Container, shim: Shim | None) -> bool:
    """Return whether the run with ``shim`` is over, after a step of it has failed.

    An exit that the engine has not recorded yet is awaited. After this the record is true.
    """
    if not container.live or container.shim is not shim:
        return True
    if shim is not None and not shim.gone and not join.init_exits(container):
        return False
    try:
        await asyncio.wait_for(container.exited.wait(), _EXIT_TIMEOUT)
    except TimeoutError:
        return False  # only the first thread of init has exited
    return True


@contextlib.asynccontextmanager
async def while_running(container: Container) -> AsyncIterator[None]:
    """Perform a step that needs the processes of a container.

    :raises Conflict: when the container does not run, or the step failed because it has exited.
    """
    check_running(container)
    shim = container.shim
    try:
        yield
    except (JaulaError, OSError) as error:
        if await has_exited(container, shim):
            raise not_running(container) from error
        raise
