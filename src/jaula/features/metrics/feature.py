"""The feature ``metrics``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig


def _has_address(config: EngineConfig) -> bool:
    return config.metrics is not None


FEATURE = Feature(
    "metrics",
    hooks=(
        Hook("listen", "listener:listen", _has_address),
        Hook("engine_started", "listener:start", _has_address),
        Hook("engine_stopping", "service:close"),
    ),
    settings={"metrics_": "settings:normalize"},
    routes={
        "metrics": ("routes",),
    },
)
