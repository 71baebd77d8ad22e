"""The hook that decides whether an image may be pulled, before its layers are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jaula.images.reference import Reference
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.manifest_download import Document
    from jaula.images.registry.repository import Repository


class Admission(Protocol):
    """The image policy, as a pull uses it."""

    def check_name(self, reference: Reference) -> None:
        """Check a name before its registry is contacted. Raise an error if it is refused."""

    def requires_signature(self, reference: Reference) -> bool:
        """Return whether an image of this name needs a signature."""

    def check_pull(
        self,
        sources: Iterable[Repository],
        reference: Reference,
        named: Document,
        manifest: Document,
        cancel: Cancellation,
    ) -> Callable[[], None]:
        """Check an image that is to be pulled and return the action for when it is stored.

        ``sources`` are the server that has named the image, and the others that may have it.
        ``named`` is the document that the name resolves to, ``manifest`` the image's: the same
        document, or one that the index lists. Raise an error if the image is refused.
        """
