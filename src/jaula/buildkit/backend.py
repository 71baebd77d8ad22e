"""The interface of the engine for BuildKit's protocol: its permission-checked facade.

The facade of a connection implements these protocols structurally, as it does those of
:mod:`jaula.api.backend`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from jaula.engine.builder.history import Attachment, BuildRecord
    from jaula.engine.builder.session import BuildSession
    from jaula.spec.build import BuildOptions, PruneOptions

Document = dict[str, Any]


class Builds(Protocol):
    """Builds of one caller; ``owner`` is its key."""

    @property
    def owner(self) -> str: ...
    def build(
        self, options: BuildOptions, stream: AsyncIterator[bytes]
    ) -> AsyncIterator[Document]: ...
    async def find_session(self, id: str) -> BuildSession: ...
    def opened_session(self, id: str, session: BuildSession) -> AbstractContextManager[None]: ...
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
    @property
    def builds(self) -> Builds: ...
