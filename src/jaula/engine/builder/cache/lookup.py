"""The steps of a stage as the cache has them, images lend them, or they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.engine.builder.image_state import Layer
from jaula.spec.image import LAYER_TAR, Descriptor
from jaula.state.records import BuildStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.builder.build import Build
    from jaula.engine.builder.progress import ProgressChannel
    from jaula.images.build.dockerfile.ast import Instruction

Made = tuple[Layer | None, str]
"""A step's layer, and when it was made."""

_SHOWN = 200  # characters of an instruction that a record holds


class CacheLookup:
    """Those of one stage; ``cached`` says whether the last one was not made now."""

    def __init__(self, build: Build, channel: ProgressChannel) -> None:
        self.cached = False
        self._build = build
        self._channel = channel

    async def step(
        self,
        key: str,
        instruction: Instruction,
        make: Callable[[], Awaitable[Layer | None]],
        quick: str = "",
    ) -> Made:
        """What the cache has under ``key``, else what ``make`` makes, which is kept.

        It is kept under the key ``quick`` as well, if there is one.
        """
        build = self._build
        known = self.found(key)
        if known is None:
            lent = None
            if not build.options.no_cache:
                lent = await build.supplies.lent(key, self._channel.put)
            self.cached = lent is not None
            layer, created = lent or (await make(), build.clock.now())
            known = self._record(key, instruction, layer, created)
            build.cache.keep(build.own(key), known)
        if quick:
            build.cache.keep(build.own(quick), msgspec.structs.replace(known, quick=True))
        return self.taken(known)

    def found(self, key: str) -> BuildStep | None:
        """What is kept under a key, where the cache is to be used."""
        build = self._build
        known = None if build.options.no_cache else build.cache.find(build.own(key))
        self.cached = known is not None
        return known

    def taken(self, known: BuildStep) -> Made:
        """A step that is kept, for this build."""
        layer = None
        if known.layer:
            layer = Layer(known.layer, Descriptor(LAYER_TAR, known.blob, known.blob_size))
            self._build.supplies.keep((layer,))
        return layer, self._build.clock.of(known.created)

    def _record(
        self, key: str, instruction: Instruction, layer: Layer | None, created: str
    ) -> BuildStep:
        step = BuildStep(instruction=instruction.headline[:_SHOWN], created=created, key=key)
        if layer is None:
            return step
        return msgspec.structs.replace(
            step,
            layer=layer.diff_id,
            blob=layer.blob.digest,
            blob_size=layer.blob.size,
            size=self._build.parts.layers.info(layer.diff_id).size,
        )
