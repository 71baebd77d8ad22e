"""Result of a build, and the results that later builds use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import NotFound
from jaula.images.image_platform import format_platform, normalize

if TYPE_CHECKING:
    from jaula.features.build.builder.build_history import Attachment
    from jaula.features.build.builder.image_state import ImageState
    from jaula.images.store.image_store import Image
    from jaula.spec.image_documents import Platform

    States = tuple[ImageState, ...]


class BuildResult(msgspec.Struct, frozen=True):
    """Result of a build. ``image`` is None if no export stored it, under ``names``.

    ``response`` has the values that the client of an export gets, by Docker's keys. ``attachments``
    are for the history.
    """

    image: Image | None
    names: tuple[str, ...] = ()
    response: Mapping[str, str] = {}
    attachments: tuple[Attachment, ...] = ()


class BuildResults:
    """Results of builds that further builds of the same caller use, by an id.

    The client's connection releases them at its end. ``close`` unpins the layers of a result.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], tuple[States, Callable[[], None]]] = {}

    def keep(self, owner: str, id: str, states: States, close: Callable[[], None]) -> None:
        """Keep a result; one of the same id is released."""
        self.release(owner, id)
        self._results[owner, id] = states, close

    def find(self, owner: str, id: str, platform: Platform) -> ImageState:
        """Return a result for a platform. A result that is not an index is for any platform.

        :raises NotFound: when the caller has no result of this id, or not for the platform.
        """
        if (found := self._results.get((owner, id))) is None:
            raise NotFound("the result of the other build does not exist any more")
        states = found[0]
        if len(states) == 1:
            return states[0]
        for state in states:
            if normalize(state.platform) == normalize(platform):
                return state
        raise NotFound(f"the other build has no image for {format_platform(platform)}")

    def release(self, owner: str, id: str) -> None:
        """Release a result, if it exists."""
        if (found := self._results.pop((owner, id), None)) is not None:
            found[1]()
