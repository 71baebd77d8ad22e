"""A pool of sandboxes: a user namespace with its ids, a network namespace with an address.

Creating one costs more than the rest of a start together, so the engine keeps a few ready. The pool
is filled in the background after a start, never during one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from jaula.engine.model.container_store import new_id
from jaula.engine.userns.id_ranges import IdRange
from jaula.errors import JaulaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.userns.id_ranges import IdMaps, IdRanges, SingleIdRange
    from jaula.network.manager import NetworkManager
    from jaula.runtime.client import Runtime, Sandbox
    from jaula.spec.endpoint import Endpoint

log = logging.getLogger("jaula.sandboxes")
_PAUSE = 0.03  # seconds; a short command has exited by then


class PreparedSandbox:
    """A sandbox on the default network that no container uses yet."""

    def __init__(self, ids: IdRange, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.ids = ids
        self.sandbox = sandbox
        self.endpoint = endpoint


class SandboxPool:
    """The pool of prepared sandboxes."""

    def __init__(
        self,
        runtime: Runtime,
        network: NetworkManager,
        ranges: IdRanges | SingleIdRange,
        size: int,
    ) -> None:
        self._runtime = runtime
        self._network = network
        self._ranges = ranges
        self._size = size
        self._ready: deque[PreparedSandbox] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def ready(self) -> int:
        """The number of prepared sandboxes."""
        return len(self._ready)

    async def take(self) -> PreparedSandbox:
        """Return a prepared sandbox, or create one if the pool is empty."""
        if self._ready:
            return self._ready.popleft()
        return await self._make()

    def release_address(self, address: str) -> None:
        """Destroy the prepared sandbox that has an address, so that a container can get it."""
        for prepared in self._ready:
            if address in (prepared.endpoint.ipv4, prepared.endpoint.ipv6):
                self._ready.remove(prepared)
                self._destroy(prepared)
                return

    def _destroy(self, prepared: PreparedSandbox) -> None:
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

    async def close(self) -> None:
        """Destroy the prepared sandboxes that no container uses."""
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filling
        while self._ready:
            self._destroy(self._ready.popleft())
