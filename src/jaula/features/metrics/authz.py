"""The metrics, as one caller may read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.features.metrics.hooks import engine_metrics

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi


def metrics_api(api: EngineApi) -> MetricsApi:
    """Return the metrics as the caller of a connection may read them."""
    return MetricsApi(api)


class MetricsApi:
    """Every caller that may list containers may read the metrics."""

    def __init__(self, api: EngineApi) -> None:
        self._engine = api.engine
        self._session = api.session

    async def page(self, format: str, *, compressed: bool) -> bytes:
        self._session.require_read()
        return await self._engine.service(engine_metrics).page(format, compressed=compressed)
