"""Layers that are mounted while they are fetched, as the store and a pull use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jaula.config import RegistryConfig
    from jaula.images.reference import Reference
    from jaula.images.registry.auth.token import Credentials
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.store.blobs import BlobStore
    from jaula.spec.image_documents import Descriptor

    EventSink = Callable[[str, str, dict[str, str]], None]


class LazyLayers(Protocol):
    """The lazy layers of one engine. Methods may be called from several threads."""

    on_event: EventSink
    """Receives action, image and attributes of an event."""

    def attach(self, blobs: BlobStore, sync: Callable[[], None]) -> None:
        """Set the blob store; ``sync`` writes it to the disk."""

    def begin(
        self,
        image: str,
        reference: Reference,
        registry: RegistryConfig,
        credentials: Credentials,
        candidates: Sequence[tuple[Descriptor, str]],
        cancel: Cancellation,
    ) -> set[str]:
        """Mount those of ``candidates`` (pairs of layer and diff id) that can be served.

        Return their names. All others have to be fetched.
        """

    def end_stored(self, layers: Iterable[tuple[Descriptor, str]]) -> None:
        """Use the directories of layers that a pull has stored whole."""

    def is_complete(self) -> bool:
        """Return whether the sockets and mounts of all servers are there."""

    def restore(self) -> None:
        """Make the sockets and mounts of all servers again that another program has removed."""

    def close(self) -> None:
        """Disconnect from all servers, which go on."""
