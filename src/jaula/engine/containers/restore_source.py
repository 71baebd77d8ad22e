"""What a start restores instead of running the program of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jaula.engine.networks.endpoints import NetworkEndpoints
    from jaula.runtime.shim_protocol import StartRequest
    from jaula.state.container_records import ContainerRecord


class RestoreSource(Protocol):
    """Saved processes that a start continues.

    ``hold`` is a socket on which the runtime waits for the saved processes, and asks before they
    run; -1: they are there. ``endpoints`` returns the settings of networks with the addresses that
    the processes had. ``complete`` returns the request to the runtime with the restore.
    """

    @property
    def hold(self) -> int: ...
    def endpoints(self, networks: NetworkEndpoints) -> NetworkEndpoints: ...
    def complete(self, record: ContainerRecord, request: StartRequest) -> StartRequest: ...
