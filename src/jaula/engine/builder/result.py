"""Result of a build, and the results that later builds use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import NotFound

if TYPE_CHECKING:
    from jaula.engine.builder.image_state import ImageState
    from jaula.images.store.store import Image


class BuildResult(msgspec.Struct, frozen=True):
    """Result of a build. ``image`` is None if no export stored it, under ``names``.

    ``response`` has the values that the client of an export gets, by Docker's keys.
    """

    image: Image | None
    names: tuple[str, ...] = ()
    response: Mapping[str, str] = {}


class BuildResults:
    """Results of builds that further builds of the same caller use, by an id.

    The client's connection releases them at its end. ``close`` unpins the layers of a result.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], tuple[ImageState, Callable[[], None]]] = {}

    def keep(self, owner: str, id: str, state: ImageState, close: Callable[[], None]) -> None:
        """Keep a result; one of the same id is released."""
        self.release(owner, id)
        self._results[owner, id] = state, close

    def find(self, owner: str, id: str) -> ImageState:
        """Return a result.

        :raises NotFound: when the caller has no result of this id.
        """
        if (found := self._results.get((owner, id))) is None:
            raise NotFound("the result of the other build does not exist any more")
        return found[0]

    def release(self, owner: str, id: str) -> None:
        """Release a result, if it exists."""
        if (found := self._results.pop((owner, id), None)) is not None:
            found[1]()
