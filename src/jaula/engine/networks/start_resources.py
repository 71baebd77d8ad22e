"""What one start of a container has taken, so that it can be given back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.security.id_ranges import IdRange

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.runtime.client import Sandbox
    from jaula.spec.endpoint import Endpoint


class StartResources:
    """What a start has taken: ids, a sandbox, endpoints. :meth:`give_back` undoes it.

    ``ids`` are those of the container's user namespace, None where that is the host's;
    ``reserved`` is the range to give back at the end. They differ where a container borrows a
    user namespace but has a network of its own; ``borrowed`` is then in use once more. ``held`` are
    descriptors of namespaces that another container lends, by OCI type.
    """

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self.ids: IdRange | None = None
        self.reserved: IdRange | None = None
        self.borrowed: IdRange | None = None
        self.held: dict[str, int] = {}
        self.sandbox: Sandbox | None = None
        self.endpoints: list[Endpoint] = []

    @property
    def endpoint(self) -> Endpoint | None:
        """The one that leads outside."""
        return self.endpoints[0] if self.endpoints else None

    @property
    def net_fd(self) -> int:
        """The sandbox's network namespace."""
        assert self.sandbox is not None
        return self.sandbox.net_fd

    def close_sandbox(self) -> None:
        """Drop our descriptors; the container holds its namespaces itself."""
        if self.sandbox is not None:
            self.sandbox.close()
            self.sandbox = None
        while self.held:
            os.close(self.held.popitem()[1])

    def release(self) -> None:
        """Undo everything that was taken."""
        while self.endpoints:
            self._parts.network.detach(self.endpoints.pop())
        self.close_sandbox()
        if self.reserved is not None:
            self._parts.ranges.release(self.reserved.start)
            self.reserved = None
        if self.borrowed is not None:
            self._parts.ranges.release(self.borrowed.start)
            self.borrowed = None
