"""The metrics of an engine, and the hooks that open and close them.

Every engine imports this module, so it imports the service itself at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula import feature

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.engine import Engine
    from jaula.features.metrics.engine_metrics import Metrics


def engine_metrics(engine: Engine) -> Metrics:
    """Return the metrics of an engine."""
    from jaula.features.metrics.engine_metrics import Metrics

    return Metrics(engine.services, _cached_steps(engine))


def _cached_steps(engine: Engine) -> Callable[[], int]:
    """Return what returns the number of steps in the build cache."""
    if feature.load("build") is None:
        return lambda: 0
    from jaula.features.build.hooks import builds

    return engine.service(builds).cached_steps


async def close(engine: Engine) -> None:
    """End the measurements of an engine that stops."""
    if (found := engine.existing(engine_metrics)) is not None:
        found.close()
