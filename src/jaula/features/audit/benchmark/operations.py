"""Section 6: images and containers that accumulate."""

from __future__ import annotations

from jaula.features.audit.benchmark.control import Control, Judgement, Kind, Scope, judged
from jaula.features.audit.benchmark.engine import EngineState

MAX_STOPPED = 25


def _images(state: EngineState) -> Judgement:
    return judged(state.unused_images * 2 <= state.images or state.unused_images <= 1,
                  f"{state.unused_images} of {state.images} images are not used by a container",
                  "jaula image prune -a")  # fmt: skip


def _containers(state: EngineState) -> Judgement:
    return judged(state.stopped_containers <= MAX_STOPPED,
                  f"{state.stopped_containers} containers are stopped",
                  "jaula container prune")  # fmt: skip


CONTROLS: tuple[Control, ...] = (
    Control("6.1", 1, (Scope.IMAGES,), "Unused images do not accumulate", {Kind.ENGINE: _images}),
    Control("6.2", 1, (Scope.CONTAINERS,), "Stopped containers do not accumulate",
            {Kind.ENGINE: _containers}),
)  # fmt: skip
