"""A pool of sandboxes: a user namespace with its ids, a network namespace with an address.

Creating one costs more than the rest of a start together, so the engine keeps a few ready. The pool
is filled in the background after a start, never during one.

Some of them have a spare init (:mod:`jaula.runtime.create.spare_init`). It is born in the cgroup of
the container that will have it, so the id of a new container is that of a spare init, if there is
one. A container that is not started soon loses it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaula.engine.model.container_store import new_id
from jaula.engine.threads import in_thread
from jaula.engine.userns.id_ranges import IdRange
from jaula.errors import JaulaError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.userns.id_ranges import IdMaps, IdRanges, SingleIdRange
    from jaula.network.manager import NetworkManager
    from jaula.runtime.runtime_client import Runtime, Sandbox, SpareInit
    from jaula.spec.endpoint_record import Endpoint
    from jaula.spec.runtime_spec import Spec

log = logging.getLogger("jaula.sandboxes")
_PAUSE = 0.03  # seconds; a short command has exited by then
_RESERVED = 10.0  # seconds that the spare init of a created container waits for its start
_REMOVALS = 20  # attempts to remove the cgroup of a spare init that was killed
_REMOVAL_PAUSE = 0.1  # seconds between two of them: its processes are exiting

SpecOf = Callable[[str, IdRange], "Spec"]
"""Returns the spec whose shape a spare init has, for the id of its container."""


class PreparedSandbox:
    """A sandbox on the default network that no container uses yet."""

    def __init__(self, ids: IdRange, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.ids = ids
        self.sandbox = sandbox
        self.endpoint = endpoint
        self.init: SpareInit | None = None

    def end_init(self) -> None:
        """End the spare init, if there is one."""
        if self.init is not None:
            self.init.close()
            self.init = None


class SandboxPool:
    """The pool of prepared sandboxes."""

    def __init__(
        self,
        runtime: Runtime,
        network: NetworkManager,
        ranges: IdRanges | SingleIdRange,
        size: int,
        *,
        inits: int = 0,
        mount_point: str = "",
        ids_file: Path | None = None,
    ) -> None:
        """Initialise; up to ``inits`` sandboxes get a spare init, once :attr:`spec_of` is set.

        ``mount_point`` is an empty directory. The next engine finds the ids of the spare inits in
        ``ids_file``: the cgroups of these have no record.
        """
        self._ids_file = ids_file
        self.spec_of: SpecOf | None = None
        self.remove_cgroup: Callable[[str], bool] = lambda container_id: True
        """Removes the cgroup of a spare init; returns False while it has a process."""
        self._runtime = runtime
        self._network = network
        self._ranges = ranges
        self._size = size
        self._inits = min(inits, size)
        self._mount_point = mount_point
        self._ready: deque[PreparedSandbox] = deque()
        self._reserved: dict[str, PreparedSandbox] = {}
        self._filling: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def ready(self) -> int:
        """The number of prepared sandboxes."""
        return len(self._ready)

    @property
    def init_ids(self) -> frozenset[str]:
        """The ids of the containers that the spare inits are meant for."""
        prepared = (*self._ready, *self._reserved.values())
        return frozenset(each.init.container_id for each in prepared if each.init is not None)

    def reserve_id(self) -> str:
        """Return the id of a new container: that of a spare init, if there is one.

        The container has the sandbox with it for some seconds.
        """
        for prepared in self._ready:
            if prepared.init is not None:
                self._ready.remove(prepared)
                container_id = prepared.init.container_id
                self._reserved[container_id] = prepared
                asyncio.get_running_loop().call_later(_RESERVED, self._expire, container_id)
                return container_id
        return new_id()

    async def take_back(self, container_id: str) -> None:
        """Take the sandbox back from a container that will not be started.

        Its spare init has ended then. It may be created at this very moment, and would be found in
        the cgroup after that has been emptied.
        """
        prepared = self._reserved.pop(container_id, None)
        if prepared is None:
            return
        if prepared.init is not None:
            prepared.init.end()
            await in_thread(prepared.init.wait)
            prepared.init = None
        self._put_back(prepared)

    def _expire(self, container_id: str) -> None:
        """Take the sandbox back from a container that was not started."""
        if prepared := self._reserved.pop(container_id, None):
            self._put_back(prepared)

    def _put_back(self, prepared: PreparedSandbox) -> None:
        if self._closed or len(self._ready) >= self._size:
            self._destroy(prepared)
            return
        prepared.end_init()
        self._ready.append(prepared)

    async def take(self, container_id: str) -> PreparedSandbox:
        """Return the sandbox that is reserved for a container, a prepared one, or a new one.

        The caller ends a spare init of it with the start.
        """
        if prepared := self._reserved.pop(container_id, None):
            if prepared.init is not None:
                prepared.init.unwatch()  # the shim closes the control socket now
            return prepared
        if not self._ready:
            return await self._make()
        prepared = min(self._ready, key=lambda each: each.init is not None)
        self._ready.remove(prepared)
        prepared.end_init()  # that of another container
        return prepared

    def release_address(self, address: str) -> None:
        """Destroy the prepared sandbox that has an address, so that a container can get it."""
        for prepared in self._ready:
            if address in (prepared.endpoint.ipv4, prepared.endpoint.ipv6):
                self._ready.remove(prepared)
                self._destroy(prepared)
                return

    def end_inits(self) -> None:
        """End the spare inits, whose mount point was removed, and create others."""
        for prepared in (*self._ready, *self._reserved.values()):
            prepared.end_init()
        if self._filling is None or self._filling.done():
            self._filling = asyncio.get_running_loop().create_task(self._add_inits())

    def _init_ended(self, prepared: PreparedSandbox) -> None:
        """Forget a spare init whose shim was killed, and remove its cgroup.

        The container that has its id removes it otherwise: it may be starting.
        """
        init = prepared.init
        prepared.end_init()
        if init is not None and prepared in self._ready:
            self._remove_cgroup(init.container_id, _REMOVALS)

    def _remove_cgroup(self, container_id: str, attempts: int) -> None:
        if self._closed or self.remove_cgroup(container_id):
            return
        if attempts == 1:
            log.warning("the cgroup of spare init %s has processes, and stays", container_id)
            return
        loop = asyncio.get_running_loop()
        loop.call_later(_REMOVAL_PAUSE, self._remove_cgroup, container_id, attempts - 1)

    def _destroy(self, prepared: PreparedSandbox) -> None:
        prepared.end_init()
        self._network.detach(prepared.endpoint)
        prepared.sandbox.close()
        self._ranges.release(prepared.ids.start)

    async def _make(self) -> PreparedSandbox:
        ids, sandbox = await self.create()
        try:
            endpoint = self._network.attach("bridge", new_id(), sandbox.net_fd)
        except BaseException:
            sandbox.close()
            self._ranges.release(ids.start)
            raise
        return PreparedSandbox(ids, sandbox, endpoint)

    async def create(
        self, *, maps: Callable[[IdRange], IdMaps | None] = lambda ids: None
    ) -> tuple[IdRange, Sandbox]:
        """Create a sandbox that is on no network; ``maps`` returns id maps other than the default.

        :raises JaulaError: when no ids are free, or the kernel refuses.
        """
        ids = self._ranges.take()
        try:
            uids, gids = maps(ids) or (self._ranges.mappings(ids), ())
            return ids, await self._runtime.sandbox(uids, gid_mappings=gids)
        except BaseException:
            self._ranges.release(ids.start)
            raise

    async def create_in_userns(self, user_fd: int) -> Sandbox:
        """Create a network namespace for a container that joins another's user namespace.

        :raises JaulaError: when the kernel refuses.
        """
        return await self._runtime.sandbox_in_userns(user_fd)

    def refill(self) -> None:
        """Schedule filling the pool, unless that is in progress.

        The container that was just started gets the processors first; only an empty pool is filled
        at once.
        """
        if self._closed or len(self._ready) >= self._size:
            return
        if self._filling is None or self._filling.done():
            pause = _PAUSE if self._ready else 0.0
            self._filling = asyncio.get_running_loop().create_task(self._fill(pause))

    async def _fill(self, pause: float) -> None:
        await asyncio.sleep(pause)
        while len(self._ready) < self._size and not self._closed:
            try:
                self._ready.append(await self._make())
            except JaulaError as error:
                log.warning("cannot prepare a network sandbox: %s", error)
                return
            # Let other tasks run between two sandboxes.
            await asyncio.sleep(0.002)
        await self._add_inits()

    async def _add_inits(self) -> None:
        """Give ready sandboxes a spare init, until there are enough.

        While starts empty the pool there is none: they would take its sandbox and end it. One that
        cannot be created, as when memory is short, is tried again with the next start.
        """
        for _ in range(self._inits):
            if self.spec_of is None or self._closed:
                return
            without = [each for each in self._ready if each.init is None]
            if len(self._ready) < self._size or self._size - len(without) >= self._inits:
                return
            prepared = without[-1]
            self._ready.remove(prepared)  # no other task takes it meanwhile
            container_id = new_id()
            try:
                self._write_ids(container_id)
                prepared.init = await self._runtime.spare_init(
                    container_id,
                    prepared.sandbox,
                    self.spec_of(container_id, prepared.ids),
                    self._mount_point,
                )
                prepared.init.watch(functools.partial(self._init_ended, prepared))
            except JaulaError as error:
                log.warning("cannot create an init ahead: %s", error)
                return
            finally:
                self._ready.append(prepared)
            await asyncio.sleep(0.002)

    def _write_ids(self, container_id: str) -> None:
        """Write the ids of the spare inits, and of one that is about to be created."""
        if self._ids_file is None:
            return
        try:
            ids = "\n".join((*self.init_ids, container_id))
            temporary = self._ids_file.with_suffix(".new")
            with open(temporary, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
                file.write(ids)
            temporary.rename(self._ids_file)  # no sync: no init survives a power failure
        except OSError as error:
            raise Unavailable(f"cannot write {self._ids_file}: {error.strerror}") from error

    async def close(self) -> None:
        """Destroy the prepared sandboxes that no container uses."""
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filling
        self._ready.extend(self._reserved.values())
        self._reserved.clear()
        inits = [each.init for each in self._ready if each.init is not None]
        for init in inits:
            init.end()
        for init in inits:
            await asyncio.to_thread(init.wait)
        while self._ready:
            self._destroy(self._ready.popleft())
