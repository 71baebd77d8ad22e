"""Sandboxes prepared ahead: a user namespace with its ids, a network namespace with its address.

Making one costs more than the rest of a start together, so a few are kept ready. The pool is
filled in the background after a start and never on a start's way.
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
_PAUSE = 0.03  # seconds; a short command has ended by then


class PreparedSandbox:
    """One sandbox on the default network, not used by anyone yet."""

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

    async def take(self) -> PreparedSandbox:
        """A sandbox, now: a prepared one, or one made for the caller."""
        if self._ready:
            return self._ready.popleft()
        return await self._make()

    async def _make(self) -> PreparedSandbox:
        ids, sandbox = await self.bare()
        try:
            endpoint = self._network.attach("bridge", new_id(), sandbox.net_fd)
        except BaseException:
            sandbox.close()
            self._ranges.release(ids.start)
            raise
        return PreparedSandbox(ids, sandbox, endpoint)

    async def bare(
        self, *, maps: Callable[[IdRange], IdMaps | None] = lambda ids: None
    ) -> tuple[IdRange, Sandbox]:
        """A new sandbox that is on no network. ``maps`` are id maps that are not usual.

        :raises JaulaError: no ids, or the kernel refuses.
        """
        ids = self._ranges.take()
        try:
            uids, gids = maps(ids) or (self._ranges.mappings(ids), ())
            return ids, await self._runtime.sandbox(uids, gid_mappings=gids)
        except BaseException:
            self._ranges.release(ids.start)
            raise

    async def bare_within(self, user_fd: int) -> Sandbox:
        """The same for a container that joins another's user namespace.

        :raises JaulaError: the kernel refuses.
        """
        return await self._runtime.network_within(user_fd)

    def refill(self) -> None:
        """Begin to fill the pool in a moment, unless that is going on.

        The container that was just started has the processors first; only an empty pool is
        filled at once.
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
            # Between two sandboxes everyone else has a turn.
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        """Undo what is prepared and not used."""
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filling
        while self._ready:
            prepared = self._ready.popleft()
            self._network.detach(prepared.endpoint)
            prepared.sandbox.close()
            self._ranges.release(prepared.ids.start)
