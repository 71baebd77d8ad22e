"""Checks and repairs, as one caller may ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.authz.rule import ContainerAccess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine

Document = dict[str, Any]


class FsckApi:
    """Images are common; everything else belongs to whoever may touch all of it."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.upkeep
        self._visitor = visitor

    def verify_images(self, names: Sequence[str]) -> AsyncIterator[Document]:
        self._visitor.run()
        return self._inner.verify_images(names)

    async def check(self, *, contents: bool) -> Document:
        self._visitor.look()
        if not self._visitor.mighty and self._visitor.rule.others < ContainerAccess.READ:
            raise self._visitor.refusal("look at what is everybody's")
        return await self._inner.check(contents=contents)

    async def repair(self, *, contents: bool) -> Document:
        with self._visitor.deed("system repair", "", lessens=True) as deed:
            deed.everyone("repair the engine")
            return await self._inner.repair(contents=contents)
