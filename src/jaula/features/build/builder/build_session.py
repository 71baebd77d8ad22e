"""Interface to the client of a build, for every protocol.

:mod:`.client_session` is jaula's own form. BuildKit's form is in
:mod:`jaula.features.build.buildkit`. All that a session sends is the input of a client: names,
sizes and times are checked by its receiver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from jaula.images.registry.cancellation import Cancellation
    from jaula.spec.api_documents import RegistryAuth
    from jaula.spec.image_documents import Descriptor

Report = Callable[[dict[str, Any]], Awaitable[None]]


FILE_MODE = 0o600
"""The mode of an :class:`ExtraFile`."""


class ExtraFile(msgspec.Struct, frozen=True):
    """A file that an export adds. ``name`` has no slash; ``mtime`` is in nanoseconds."""

    name: bytes
    data: bytes
    mtime: int


class AgentStream(Protocol):
    """A connection to the client's ssh agent."""

    def data(self) -> AsyncIterator[bytes]:
        """Yield what the agent sends, until it closes its side."""

    async def send(self, data: bytes) -> None:
        """Send bytes to the agent."""

    async def end(self) -> None:
        """Tell the agent that no more bytes follow."""

    def close(self) -> None:
        """Close the connection."""


class BuildSession(Protocol):
    """The session of one client. ``owner`` is the key of the caller that opened it."""

    @property
    def owner(self) -> str: ...

    def close(self) -> None:
        """End the session; every request that waits for an answer fails."""

    async def secret(self, id: str) -> bytes | None:
        """Return the bytes of a secret; None if the client does not have it.

        :raises Unavailable: when the client does not answer.
        :raises InvalidRequest: when the secret is too large.
        """

    async def has_agent(self, id: str) -> bool:
        """Return whether the client forwards an ssh agent of this id, as far as it tells."""

    async def open_agent(self, id: str) -> AgentStream:
        """Connect to the client's ssh agent.

        :raises Unavailable: when the session is gone.
        """

    async def receive_context(self, name: str, path: str, cancel: Cancellation) -> None:
        """Receive a directory of the client into an empty directory of the engine.

        :raises InvalidRequest: when the client does not have it, or it is hostile.
        """


class ContentStore(Protocol):
    """A directory of the client that has blobs by digest, an OCI image layout."""

    async def size(self, digest: str) -> int:
        """Return the size of a blob in bytes.

        :raises NotFound: when the store does not have it.
        """

    def read(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """Yield the content of a blob of ``size`` bytes. The caller verifies the digest.

        :raises NotFound: when the store does not have it.
        :raises InvalidRequest: when it has another size.
        """

    async def write(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> bool:
        """Write a blob. Return False if the store has it already."""


class LocalSession(BuildSession, Protocol):
    """A session whose client leaves it to the engine what it sends, and can receive results.

    ``shared_key`` is the client's key of its directories, the same in each build; '' without one.
    """

    @property
    def shared_key(self) -> str: ...

    async def receive_files(self, name: str, path: str, only: tuple[str, ...]) -> None:
        """Receive some files of a client's directory, those that exist.

        :raises InvalidRequest: when the client does not have the directory.
        """

    async def receive_directory(
        self,
        name: str,
        path: str,
        only: tuple[str, ...],
        excluded: tuple[str, ...],
        previous: str,
        report: Report,
    ) -> None:
        """Receive a client's directory without the paths that ignore patterns exclude.

        ``only`` are paths and patterns, to which the transfer is limited; all without any. Files
        that are unchanged since the transfer to ``previous`` are linked from there; '' means that
        there was none. ``report`` gets the numbers of bytes while they arrive.

        :raises InvalidRequest: when the client does not have it, or it is hostile.
        """

    async def credentials(self, domain: str) -> RegistryAuth | None:
        """Return the client's credentials of a registry; None without any."""

    def content_store(self, id: str) -> ContentStore:
        """Return a content store of the client by its name, whether it exists or not."""

    async def send_file(
        self, export: int, metadata: Mapping[str, str], chunks: AsyncIterator[bytes]
    ) -> None:
        """Send a file to the destination of an export.

        :raises InvalidRequest: when the client does not accept it.
        """

    async def send_directory(
        self, export: int, root: int, prefix: str, files: Sequence[ExtraFile]
    ) -> None:
        """Send the files below a directory, a descriptor, to the destination of an export.

        They and ``files`` go into the directory ``prefix``, '' for the destination itself. One of
        ``files`` replaces a file of the same name.

        :raises InvalidRequest: when the client does not accept them.
        """
