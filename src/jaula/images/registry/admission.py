"""Who is asked whether an image may come in, before its layers are fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from jaula.images.reference import Reference
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.manifest import Document
from jaula.images.registry.repository import Repository


class Admission(Protocol):
    """The policy, as a pull sees it."""

    def asked(self, reference: Reference) -> None:
        """Raise an error for a name that is refused whatever it leads to."""

    def arriving(
        self,
        sources: Sequence[Repository],
        reference: Reference,
        named: Document,
        manifest: Document,
        cancel: Cancellation,
    ) -> Callable[[], None]:
        """Raise an error for an image that may not; else what to do when it is stored.

        ``sources`` are where it is fetched from, and where it would be if not there.
        ``named`` is what the name leads to, ``manifest`` the image's: the same, or one of an index.
        """
