"""What of a Dockerfile is to be done, and in which order it can be."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.images.build.language.dockerfile import Remark, Stage


class PlannedStage(msgspec.Struct, frozen=True):
    """A stage that is needed.

    ``base`` is the image to start from, ``scratch``, or '' where ``base_stage`` is the index of the
    stage to go on from. ``platform`` is '' for the target's. ``needs`` are indices of the stages
    that this one waits for. ``origins`` says what the ``from`` of its COPY and ``RUN --mount`` are:
    a stage's index, or the name of an image.
    """

    stage: Stage
    base: str
    base_stage: int | None
    platform: str
    needs: tuple[int, ...]
    origins: Mapping[str, int | str]


class Plan(msgspec.Struct, frozen=True):
    """``stages`` stand after all that they need; the last one is the target.

    ``arguments`` are the values that stages see of an ARG without a default: those before the first
    FROM, the predefined ones of the platform, the builder's own (``--build-arg``) before both.
    ``hidden`` are names that every RUN gets and no history or cache key shows (the proxies).
    ``unused`` are build arguments that no ARG asked for.
    """

    stages: tuple[PlannedStage, ...]
    escape: str
    arguments: Mapping[str, str]
    hidden: frozenset[str]
    unused: tuple[str, ...]
    remarks: tuple[Remark, ...]
