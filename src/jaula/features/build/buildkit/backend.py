"""The interface of the engine for BuildKit's protocol: its permission-checked facade.

The facade of a connection implements these protocols structurally, as it does those of
:mod:`jaula.api.backend`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.build.builder.history import Attachment, BuildRecord
    from jaula.features.build.builder.remote_tree import RemoteTree
    from jaula.features.build.builder.session import BuildSession
    from jaula.features.build.options import BuildOptions, PruneOptions

Document = dict[str, Any]


Service = TypeVar("Service")


class Builds(Protocol):
    """Builds of one caller; ``owner`` is its key."""

    @property
    def owner(self) -> str: ...
    def build(
        self, options: BuildOptions, stream: AsyncIterator[bytes] | None
    ) -> AsyncIterator[Document]: ...
    async def find_session(self, id: str) -> BuildSession: ...
    def opened_session(self, id: str, session: BuildSession) -> AbstractContextManager[None]: ...
    async def open_remote(self, address: str, session: str) -> RemoteTree: ...
    async def announce_session(self) -> None: ...
    def release(self, result: str) -> None: ...
    def worker(self) -> Document: ...
    def record(self, record: BuildRecord) -> None: ...
    def records(self) -> list[BuildRecord]: ...
    def attachment(self, digest: str) -> Attachment | None: ...
    def remove_record(self, ref: str) -> bool: ...
    async def prune(self, options: PruneOptions) -> Document: ...
    async def usage(self) -> list[Document]: ...


class Access(Protocol):
    """The checks before a request is read."""

    def require_access(self, request: str) -> None: ...


class Backend(Protocol):
    """The functions of the engine that the protocol calls."""

    @property
    def access(self) -> Access: ...
    def service(self, make: Callable[[EngineApi], Service]) -> Service:
        """Return an authorised service, by the function that makes it."""
